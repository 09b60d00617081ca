//! The cases: each is a program that must not compile, beside what the compiler says of it. Its first
//! line says which promise it would break.

/// Fails to compile (ambiguous) as soon as the type implements one of the traits.
macro_rules! lacks {
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

// Authority moves: none of these can be copied, printed, or written down and read again.
lacks!(keybearer_gate::Principal: Clone, std::fmt::Debug, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_gate::TenantContext: Clone, std::fmt::Debug, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_gate::Permit: Clone, std::fmt::Debug, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_gate::Cleared: Clone, std::fmt::Debug, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_ledger::Intent: Clone, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_ledger::Receipt: Clone, serde::Serialize, serde::de::DeserializeOwned, Default);
lacks!(keybearer_ledger::CallEntry: Clone, serde::Serialize);
lacks!(keybearer_ledger::DispatchEntry: Clone, serde::Serialize);

// Secrets: none of these can be shown in any way.
lacks!(keybearer_strongbox::SecretInput: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::Lease: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::Armed: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::OpenArmed: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::Raw: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::UseGuard: Clone, serde::Serialize);
lacks!(keybearer_strongbox::MasterKey: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);
lacks!(keybearer_strongbox::ScrubSet: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize);

#[test]
fn types_that_carry_authority_do_not_let_go_of_it() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
