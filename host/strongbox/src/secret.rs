//! A secret value while it is open. This file says what a secret *cannot* do; what may be done with
//! one is in the files that call [`Secret::expose`], each of which says what for.

use zeroize::Zeroize;

/// Bytes that leave this room only inside a request.
///
/// Deliberately implements nothing: no `Debug`, `Clone`, `PartialEq`, `Deref` or serde. What holds one
/// cannot derive them either, so a leak has to be written by hand, in one of the few files that call
/// [`Secret::expose`].
///
/// What is promised is that *this* copy is wiped. These are not: the `HeaderValue` that carries a
/// credential on a request, hyper's write buffer, the TLS library's record buffers, the answer's own
/// bytes, and the automaton of a scrub set, which holds the value in every form that it looks for.
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over and wipes the place where they were.
    pub(crate) fn take(mut bytes: Vec<u8>) -> Self {
        // `into_boxed_slice` would shrink in place or move, and a move leaves an unwiped copy behind.
        let secret = Self(bytes.as_slice().into());
        bytes.zeroize();
        secret
    }

    /// The bytes. Each caller is a place to look at in a review.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes, which is not the secret.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Secret {
    // Not inlined, so that the wipe is not optimised together with the end of the owner's life.
    #[inline(never)]
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Fails to compile (E0283, ambiguous) as soon as the type implements the trait.
macro_rules! assert_lacks {
    ($type:ty: $($bound:path),* $(,)?) => {
        $(const _: fn() = || {
            trait AmbiguousIfImplemented<Marker> {
                fn probe() {}
            }
            impl<T: ?Sized> AmbiguousIfImplemented<()> for T {}
            struct Implemented;
            impl<T: ?Sized + $bound> AmbiguousIfImplemented<Implemented> for T {}
            let _ = <$type as AmbiguousIfImplemented<_>>::probe;
        };)*
    };
}
pub(crate) use assert_lacks;

assert_lacks!(Secret:
    std::fmt::Debug, std::fmt::Display, Clone, PartialEq, PartialOrd, std::hash::Hash, serde::Serialize,
    std::ops::Deref, AsRef<[u8]>, std::borrow::Borrow<[u8]>, Into<Vec<u8>>, Default,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_what_it_took() {
        let secret = Secret::take(b"canary-canary-canary".to_vec());
        assert_eq!(secret.expose(), b"canary-canary-canary");
        assert_eq!(secret.len(), 20);
    }
}
