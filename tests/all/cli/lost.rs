//! Files that are gone or spoilt: it is said which, nothing is made in their place, and put back they are as they were.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keybearer_tests::canary;

use super::Person;

/// What a start and `doctor` say, neither of which goes well.
fn refused(person: &mut Person) -> anyhow::Result<(String, String)> {
    let doctor = person.run(&["doctor"])?;
    anyhow::ensure!(doctor.status == Some(1) && doctor.out.contains("MEND"), "doctor passes it: {doctor:?}");
    let served = person.serve().err().map(|error| format!("{error:#}"));
    let served = served.ok_or_else(|| anyhow::anyhow!("it starts"))?;
    let again = person.run(&["doctor"])?.out;
    anyhow::ensure!(again == doctor.out, "the start made something: {} and then {again}", doctor.out);
    Ok((doctor.out, served))
}

/// Whether the folder holds nothing that was made anew.
fn is_left_alone(path: &Path) -> bool {
    !path.exists() || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a13_what_is_lost_is_told_and_nothing_is_made_in_its_place() -> anyhow::Result<()> {
    // If this failed, a fresh master key would stand where the right one is missed: a restore that does not overwrite, or
    // the next backup, would take it for the store's, and every stored credential would be lost.
    let mut person = Person::new()?;
    person.init()?;
    person.serve()?;
    person.acme("credentials,audit")?;
    let store = ["credential", "store", "c", "--value-file", "-", "--owner", "o", "--justification", "j"];
    person.run_with(&[&store[..], &["--token-file", "acme.token"]].concat(), &canary("kept-"))?.good()?;
    person.stop()?;

    for (name, doctors, servers) in [
        ("master.key", "put the key back", "put the key back"),
        ("store.db", "is gone: put it back", "store.db"),
        ("ledger", "put the folder back", "put the folder back"),
    ] {
        let (place, kept) = (person.path(&format!("keybearer-data/{name}")), person.path("kept"));
        std::fs::rename(&place, &kept)?;
        let (doctor, served) = refused(&mut person)?;
        assert!(doctor.contains(doctors) && served.contains(servers), "{name}: {doctor}{served}");
        assert!(is_left_alone(&place), "{name} was made anew");
        if place.exists() {
            std::fs::remove_dir(&place)?;
        }
        std::fs::rename(&kept, &place)?;
    }
    let key = person.path("keybearer-data/master.key");
    let whole = std::fs::read(&key)?;
    std::fs::write(&key, &whole[..30])?;
    let (doctor, served) = refused(&mut person)?;
    assert!(doctor.contains("put the key back") && served.contains("is not a master key file"), "{doctor}{served}");
    // A whole one, of another store.
    let mut elsewhere = Person::new()?;
    elsewhere.init()?;
    elsewhere.serve()?;
    elsewhere.stop()?;
    std::fs::copy(elsewhere.path("keybearer-data/master.key"), &key)?;
    let (doctor, served) = refused(&mut person)?;
    for told in [doctor, served] {
        assert!(told.contains("does not open the data key") && told.contains("put the key back"), "{told}");
    }
    std::fs::write(&key, &whole)?;

    // A server that has just stopped lets go of its port.
    person.run(&["doctor"])?.good()?;
    person.serve()?;
    assert!(person.run(&["doctor"])?.out.contains("is this store's"), "also beside a server that runs");
    assert!(person.as_tenant(&["credential", "list"])?.good()?.contains("active"));
    Ok(())
}

#[test]
fn a_lost_operator_token_is_replaced_as_it_is_told() -> anyhow::Result<()> {
    // If this failed, whoever lost one small file would have lost the administration of every tenant.
    let mut person = Person::new()?;
    person.init()?;
    person.serve()?;
    person.run(&["tenant", "create", "before"])?.good()?;
    person.stop()?;
    let file = person.path("keybearer-data/operator.token");
    let lost = std::fs::read_to_string(&file)?;
    for spoilt in [None, Some("some words of one's own")] {
        match spoilt {
            None => std::fs::remove_file(&file)?,
            Some(text) => {
                std::fs::write(&file, text)?;
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            }
        }
        let (doctor, served) = refused(&mut person)?;
        for told in [doctor, served, person.run(&["init"])?.refused()? + &person.run(&["tenant", "list"])?.refused()?] {
            assert!(told.contains("keybearer operator new-token"), "{told}");
        }
    }
    let made = person.run(&["operator", "new-token"])?.good()?;
    let fresh = std::fs::read_to_string(&file)?;
    assert!(
        made.contains("restart") && !made.contains("kbop_") && fresh.starts_with("kbop_") && fresh != lost,
        "{made}"
    );
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    person.serve()?;
    assert!(person.run(&["tenant", "list"])?.good()?.contains("before"));
    Ok(())
}
