//! Where a credential really went: methods, hosts and paths, generalised where they would become too many, so
//! that a narrower binding can be proposed. What is proposed is for a person to look at: a path that was not used
//! yet is not one that is not needed.

use std::collections::BTreeMap;

use keybearer_contract::Binding;
use keybearer_contract::Method;
use keybearer_gate::Cleared;
use keybearer_gate::Destination;
use serde::Deserialize;
use serde::Serialize;

/// The places of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    known: Vec<Place>,
    /// There were more than are kept: nothing can be proposed.
    #[serde(default)]
    are_too_many: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    host: String,
    port: u16,
    method: Method,
    /// Literal segments, and `{id}` for those that vary.
    path: String,
}

/// Places of one credential that are kept: more are no narrower binding that anybody would read.
const PLACES_MAX: usize = 64;

/// Different texts at one position of a path before it counts as one that varies.
const LITERALS_MAX: usize = 4;

/// The longest path that is kept.
const PATH_BYTES_MAX: usize = 256;

/// Stands for one segment that varies.
const ANY: &str = "{id}";

impl Places {
    /// Adds where a request goes; its path as records may have it.
    pub(crate) fn note(&mut self, cleared: &Cleared, path: &str) {
        let destination = cleared.destination();
        self.add(&destination.host().to_string(), destination.port(), cleared.method(), path);
    }

    /// Adds where a URL that is signed goes. What is signed without a place may go anywhere: no binding names that, and
    /// a credential that has one would sign nothing of the kind any more.
    pub(crate) fn note_signature(&mut self, target: Option<(&Destination, Method, String)>) {
        match target {
            Some((destination, method, path)) => {
                self.add(&destination.host().to_string(), destination.port(), method, &path);
            }
            None => self.are_too_many = true,
        }
    }

    fn add(&mut self, host: &str, port: u16, method: Method, path: &str) {
        if self.known.iter().any(|place| place.is_at(host, port, method) && covers(&place.path, path)) {
            return;
        }
        if self.are_too_many || path.len() > PATH_BYTES_MAX {
            self.are_too_many = true;
            return;
        }
        let mut place = Place { host: host.to_owned(), port, method, path: writable(path) };
        while let Some(wider) = self.generalised(&place) {
            self.known.retain(|known| !(known.is_at(host, port, method) && covers(&wider, &known.path)));
            place.path = wider;
        }
        self.known.push(place);
        if self.known.len() > PLACES_MAX {
            self.known.clear();
            self.are_too_many = true;
        }
    }

    /// The path with `{id}` where it and its like differ, if they are many.
    fn generalised(&self, new: &Place) -> Option<String> {
        let parts: Vec<&str> = new.path.split('/').collect();
        for at in (1..parts.len()).filter(|at| parts[*at] != ANY && !parts[*at].is_empty()) {
            let mut wider = parts.clone();
            wider[at] = ANY;
            let wider = wider.join("/");
            let mut like = self.known.iter().filter(|known| known.is_at(&new.host, new.port, new.method));
            if like.by_ref().filter(|known| covers(&wider, &known.path)).count() >= LITERALS_MAX {
                return Some(wider);
            }
        }
        None
    }

    /// The narrowest binding that names them all; none if nothing was used, or too much.
    pub(crate) fn binding(&self) -> Option<Vec<Binding>> {
        if self.known.is_empty() || self.are_too_many {
            return None;
        }
        // First the methods of each path, then the paths of each set of methods.
        let mut methods: BTreeMap<(&str, u16, &str), Vec<Method>> = BTreeMap::new();
        for place in &self.known {
            methods.entry((&place.host, place.port, &place.path)).or_default().push(place.method);
        }
        let mut paths: BTreeMap<(&str, u16, Vec<Method>), Vec<&str>> = BTreeMap::new();
        for ((host, port, path), mut methods) in methods {
            methods.sort_unstable();
            paths.entry((host, port, methods)).or_default().push(path);
        }
        let binding = |((host, port, methods), paths): ((&str, u16, Vec<Method>), Vec<&str>)| {
            let paths = paths.into_iter().map(|path| path.to_owned().try_into().ok()).collect::<Option<_>>()?;
            Some(Binding { host: host.to_owned().try_into().ok()?, port, methods, paths, headers: Vec::new() })
        };
        paths.into_iter().map(binding).collect()
    }
}

impl Place {
    fn is_at(&self, host: &str, port: u16, method: Method) -> bool {
        self.host == host && self.port == port && self.method == method
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part)) if wanted == part || (wanted == ANY && !part.is_empty()) => {}
            _ => return false,
        }
    }
}

/// A path whose every segment can stand in a pattern.
fn writable(path: &str) -> String {
    let fits = |part: &str| !part.bytes().any(|byte| b"*{}?[]\\%^$()|;".contains(&byte));
    let parts: Vec<&str> = path.split('/').map(|part| if fits(part) { part } else { ANY }).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(paths: &[(Method, &str)]) -> Places {
        let mut places = Places::default();
        paths.iter().for_each(|(method, path)| places.add("api.example", 443, *method, path));
        places
    }

    fn proposed(places: &Places) -> Vec<(Vec<Method>, Vec<String>)> {
        let binding = places.binding().expect("something was used");
        let paths = |binding: &Binding| binding.paths.iter().map(|path| path.as_str().to_owned()).collect();
        binding.iter().map(|binding| (binding.methods.clone(), paths(binding))).collect()
    }

    #[test]
    fn few_places_are_proposed_as_they_are() {
        let places = used(&[
            (Method::Get, "/repos/acme/app/issues"),
            (Method::Post, "/repos/acme/app/issues"),
            (Method::Get, "/user"),
            (Method::Get, "/user"),
        ]);
        let both = (vec![Method::Get, Method::Post], vec!["/repos/acme/app/issues".to_owned()]);
        assert_eq!(proposed(&places), [(vec![Method::Get], vec!["/user".to_owned()]), both]);
    }

    #[test]
    fn what_varies_becomes_one_pattern_and_odd_segments_too() {
        let names: Vec<String> = (0..20).map(|number| format!("/v1/charges/ch_{number}/refunds")).collect();
        let paths: Vec<_> = names.iter().map(|name| (Method::Get, name.as_str())).collect();
        assert_eq!(proposed(&used(&paths)), [(vec![Method::Get], vec!["/v1/charges/{id}/refunds".to_owned()])]);
        let odd = used(&[(Method::Get, "/a/b%20c"), (Method::Get, "/a/d;e")]);
        assert_eq!(proposed(&odd), [(vec![Method::Get], vec!["/a/{id}".to_owned()])]);
        assert!(Places::default().binding().is_none());
    }

    #[test]
    fn places_are_bounded_and_then_nothing_is_proposed() {
        let mut places = Places::default();
        for number in 0..PLACES_MAX + 9 {
            places.add(&format!("h{number}.example"), 443, Method::Get, "/");
        }
        assert!(places.binding().is_none() && places.known.is_empty());
        let mut long = Places::default();
        long.add("a.example", 443, Method::Get, &format!("/{}", "a".repeat(PATH_BYTES_MAX)));
        assert!(long.binding().is_none());
    }
}
