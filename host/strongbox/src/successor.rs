//! Successors: a source gives a new half of what is stored, and it is sealed as the next version without
//! that anybody has read it.

use keybearer_gate::StoredForm;
use zeroize::Zeroizing;

use crate::Accepted;
use crate::SecretInput;
use crate::Selected;
use crate::Strongbox;
use crate::ValueRefused;
use crate::Vessel;
use crate::accept::user_and_password;

impl Strongbox {
    /// Seals, as this version of the credential that was selected, its stored user (or id) with the password (or
    /// secret) that an answer left in the vessel under this name.
    ///
    /// # Errors
    /// [`ValueRefused`], also if what is stored is no pair, or nothing is there under that name.
    pub fn seal_with_password(
        &self,
        selected: &Selected,
        vessel: &Vessel,
        name: &str,
        version: u32,
    ) -> Result<Accepted, ValueRefused> {
        let (tenant, credential) = (selected.tenant(), selected.credential());
        let record = self.record(tenant, credential).ok_or(ValueRefused::Unsealable)?;
        if record.kind.stored() != StoredForm::Pair {
            return Err(ValueRefused::NotUserAndPassword);
        }
        let stored = self.open_version(&record, selected.version()).map_err(|_| ValueRefused::Unsealable)?;
        let (user, _) = user_and_password(stored.expose()).ok_or(ValueRefused::NotUserAndPassword)?;
        let password = vessel.get(name).ok_or(ValueRefused::NotUserAndPassword)?;
        // Reserved whole, so that it is never moved while it grows.
        let mut value = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
        value.extend_from_slice(user);
        value.push(b':');
        value.extend_from_slice(password.expose());
        let value = SecretInput::new(std::mem::take(&mut *value));
        self.accept(tenant, credential, version, &record.kind, value)
    }
}
