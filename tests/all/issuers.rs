//! The real servers that issue credentials, by themselves: that they run, prove their names by the tests'
//! authority, and do what the cases of the sources expect of them. Nothing of the product runs here.

mod moto;
mod oidc;
mod openbao;
mod postgres;
