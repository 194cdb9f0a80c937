//! Tests of the contract from outside: any bytes at any address, and the documented forms.

mod region;

#[cfg(feature = "serde")]
mod event;
mod tables;
