//! The only room that opens a connection on a guest's behalf: resolving, vetting, dialling, dispatch.
