//! A Kerberos credential from a keytab or ticket cache of its own, not the process's.

#![expect(unsafe_code, reason = "libgssapi has no call that takes a keytab; the C function does")]

use std::ffi::CString;
use std::ptr;

use libgssapi::credential::Cred;
use libgssapi::error::{Error, MajorFlags};
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL, Oid};
use libgssapi_sys as c;

/// `gss_acquire_cred_from` (MIT Kerberos 1.11 and later) for use as a client.
///
/// `store` names the places by MIT's keys, such as `client_keytab` and `ccache`; without any it is
/// the process's default. Blocks.
pub(super) fn acquire(principal: Option<&str>, store: &[(&str, &str)]) -> Result<Cred, Error> {
    let name = principal.map(ImportedName::new).transpose()?;
    let owned: Vec<(CString, CString)> = store
        .iter()
        .map(|(key, value)| Ok((CString::new(*key)?, CString::new(*value)?)))
        .collect::<Result<_, std::ffi::NulError>>()
        .map_err(|_| failed(c::_GSS_S_FAILURE, 0))?;
    let mut elements: Vec<_> = owned
        .iter()
        .map(|(key, value)| c::gss_key_value_element_desc {
            key: key.as_ptr(),
            value: value.as_ptr(),
        })
        .collect();
    let set = c::gss_key_value_set_desc {
        count: u32::try_from(elements.len()).unwrap_or(0),
        elements: elements.as_mut_ptr(),
    };
    let mut mechanism = described(&GSS_MECH_KRB5);
    let mut mechanisms = c::gss_OID_set_desc { count: 1, elements: &raw mut mechanism };
    let (mut minor, mut cred) = (0, ptr::null_mut());
    // SAFETY: every pointer is to a value that outlives the call, or null where that is allowed.
    let major = unsafe {
        c::gss_acquire_cred_from(
            &raw mut minor,
            name.as_ref().map_or(ptr::null_mut(), |name| name.0),
            c::_GSS_C_INDEFINITE,
            &raw mut mechanisms,
            c::GSS_C_INITIATE as c::gss_cred_usage_t,
            if store.is_empty() { ptr::null() } else { &raw const set },
            &raw mut cred,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if major != c::GSS_S_COMPLETE {
        return Err(failed(major, minor));
    }
    // SAFETY: the credential is new, and nobody else has it.
    Ok(unsafe { Cred::from_c(cred) })
}

/// A name in the C library's form; freed when it is dropped.
struct ImportedName(c::gss_name_t);

impl ImportedName {
    fn new(principal: &str) -> Result<Self, Error> {
        // The C library reads both and writes neither.
        let mut text =
            c::gss_buffer_desc { length: principal.len(), value: principal.as_ptr() as *mut _ };
        let mut kind = described(&GSS_NT_KRB5_PRINCIPAL);
        let (mut minor, mut name) = (0, ptr::null_mut());
        // SAFETY: every pointer is to a value that outlives the call.
        let major = unsafe {
            c::gss_import_name(&raw mut minor, &raw mut text, &raw mut kind, &raw mut name)
        };
        if major == c::GSS_S_COMPLETE { Ok(Self(name)) } else { Err(failed(major, minor)) }
    }
}

impl Drop for ImportedName {
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: the name is this value's own.
        let _freed = unsafe { c::gss_release_name(&raw mut minor, &raw mut self.0) };
    }
}

/// The C library reads it and does not write.
fn described(oid: &Oid<'static>) -> c::gss_OID_desc {
    let bytes: &[u8] = oid;
    c::gss_OID_desc { length: bytes.len() as u32, elements: bytes.as_ptr() as *mut _ }
}

fn failed(major: u32, minor: u32) -> Error {
    Error { major: MajorFlags::from_bits_retain(major), minor }
}
