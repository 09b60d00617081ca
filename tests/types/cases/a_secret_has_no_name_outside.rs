// P8: only one small crate can read a secret. Others cannot even say its name.

use keybearer_strongbox::Secret;
use keybearer_strongbox::secret::Secret as Other;

fn main() {}
