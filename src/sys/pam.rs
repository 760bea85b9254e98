//! Pluggable Authentication Modules (pam(3)), as far as a password goes: no sessions, no credentials,
//! no change of passwords.
//!
//! Modules are code of others. They may wait without end, change the credentials of all threads, and
//! end the process: to be called in a process that has nothing else to do.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// What PAM says to a name and a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The password is right, and the account may be used.
    Accepted,
    /// The password is wrong, or the name is unknown.
    Refused,
    /// The password is right, and the account may not be used.
    Closed,
    /// The account has expired.
    Expired,
    /// The password is to be changed first, which FTP cannot do.
    PasswordExpired,
}

/// Asks PAM, for as long as its modules take.
///
/// # Errors
/// Why it cannot tell, in PAM's words, without secrets.
pub fn verify(service: &str, user: &str, password: &[u8], client: &str) -> Result<Verdict, String> {
    let text = |text: &str| CString::new(text).map_err(|_| "a NUL character".to_owned());
    let (service, user, client) = (text(service)?, text(user)?, text(client)?);
    let Ok(password) = CString::new(password) else {
        // No C program has set such a password.
        return Ok(Verdict::Refused);
    };
    let conversation = Conversation {
        converse,
        data: password.as_ptr().cast_mut().cast(),
    };
    let mut handle = Handle::start(&service, &user, &conversation)?;
    let verdict = handle.judge(&user, &client);
    handle.end(verdict.as_ref().map_or(PAM_SYSTEM_ERR, |_| handle.last));
    verdict
}

/// A transaction; the conversation and the password outlive it.
struct Handle {
    raw: *mut c_void,
    last: c_int,
}

impl Handle {
    fn start(service: &CStr, user: &CStr, conversation: &Conversation) -> Result<Self, String> {
        let mut raw = ptr::null_mut();
        // SAFETY: three C strings and structures that live until pam_end(3); PAM fills the handle.
        let code =
            unsafe { pam_start(service.as_ptr(), user.as_ptr(), conversation, &raw mut raw) };
        match code {
            PAM_SUCCESS if !raw.is_null() => Ok(Self { raw, last: code }),
            code => Err(format!("pam_start fails with {code}")),
        }
    }

    fn judge(&mut self, user: &CStr, client: &CStr) -> Result<Verdict, String> {
        self.set(PAM_RHOST, client.as_ptr().cast())?;
        self.set(PAM_TTY, c"ftp".as_ptr().cast())?;
        // The server waits after a failure by itself, without holding up a thread for it.
        self.set(PAM_FAIL_DELAY, no_delay as *const c_void)?;
        // SAFETY: the handle is one of a transaction under way, here and below.
        self.last = unsafe { pam_authenticate(self.raw, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK) };
        match self.last {
            PAM_SUCCESS => {}
            PAM_AUTH_ERR
            | PAM_USER_UNKNOWN
            | PAM_MAXTRIES
            | PAM_PERM_DENIED
            | PAM_CRED_INSUFFICIENT => return Ok(Verdict::Refused),
            PAM_ACCT_EXPIRED => return Ok(Verdict::Expired),
            _ => return Err(self.failure("pam_authenticate")),
        }
        // SAFETY: as above.
        self.last = unsafe { pam_acct_mgmt(self.raw, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK) };
        match self.last {
            PAM_SUCCESS => {}
            PAM_ACCT_EXPIRED => return Ok(Verdict::Expired),
            PAM_NEW_AUTHTOK_REQD | PAM_AUTHTOK_EXPIRED => return Ok(Verdict::PasswordExpired),
            PAM_PERM_DENIED | PAM_AUTH_ERR | PAM_USER_UNKNOWN => return Ok(Verdict::Closed),
            _ => return Err(self.failure("pam_acct_mgmt")),
        }
        // A module may make another user of the one that was asked for.
        match self.user()? == user {
            true => Ok(Verdict::Accepted),
            false => Err("its modules turn the user into another one".to_owned()),
        }
    }

    fn set(&mut self, item: c_int, value: *const c_void) -> Result<(), String> {
        // SAFETY: PAM copies C strings, and keeps the address of a function.
        self.last = unsafe { pam_set_item(self.raw, item, value) };
        match self.last {
            PAM_SUCCESS => Ok(()),
            _ => Err(self.failure("pam_set_item")),
        }
    }

    fn user(&mut self) -> Result<&CStr, String> {
        let mut name: *const c_void = ptr::null();
        // SAFETY: PAM fills in a C string of its own, or leaves the null pointer.
        self.last = unsafe { pam_get_item(self.raw, PAM_USER, &raw mut name) };
        if self.last != PAM_SUCCESS || name.is_null() {
            return Err(self.failure("pam_get_item"));
        }
        // SAFETY: as above; it lives until the item is set again or the transaction ends.
        Ok(unsafe { CStr::from_ptr(name.cast()) })
    }

    fn failure(&self, function: &str) -> String {
        // SAFETY: a C string without an end of its life comes back.
        let text = unsafe { CStr::from_ptr(pam_strerror(self.raw, self.last)) };
        format!("{function}: {}", text.to_string_lossy())
    }

    fn end(&self, status: c_int) {
        // SAFETY: the handle is not used any more: its only owner gives it up here.
        unsafe { pam_end(self.raw, status) };
    }
}

/// Answers the modules: what is asked for without echo is the password, and nothing else is known.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let (Ok(count), false) = (usize::try_from(count), messages.is_null()) else {
        return PAM_CONV_ERR;
    };
    if count == 0 || count > MESSAGES_MAX || responses.is_null() || data.is_null() {
        return PAM_CONV_ERR;
    }
    // SAFETY: PAM hands over so many pointers to messages (pam_conv(3); Linux-PAM has an array of
    // pointers).
    let messages = unsafe { std::slice::from_raw_parts(messages, count) };
    // SAFETY: each points to a message.
    let styles = messages.iter().map(|message| unsafe { (**message).style });
    if styles.clone().any(|style| !KNOWN_STYLES.contains(&style)) {
        return PAM_CONV_ERR;
    }
    // SAFETY: takes numbers only; PAM releases it, and what it points to, by free(3).
    let answers: *mut Response = unsafe { libc::calloc(count, size_of::<Response>()) }.cast();
    if answers.is_null() {
        return PAM_BUF_ERR;
    }
    for (index, style) in styles.enumerate() {
        if style == PAM_PROMPT_ECHO_OFF {
            // SAFETY: `data` is the C string of the password, and the array has `count` elements.
            unsafe { (*answers.add(index)).text = libc::strdup(data.cast()) };
        }
    }
    // SAFETY: PAM gave the place for the address.
    unsafe { *responses = answers };
    PAM_SUCCESS
}

extern "C" fn no_delay(_code: c_int, _microseconds: libc::c_uint, _data: *mut c_void) {}

/// `struct pam_message` of security/_pam_types.h.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`
#[repr(C)]
struct Response {
    text: *mut c_char,
    unused: c_int,
}

/// `struct pam_conv`
#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
    fn pam_set_item(handle: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    fn pam_get_item(handle: *const c_void, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_strerror(handle: *mut c_void, code: c_int) -> *const c_char;
}

// Numbers of Linux-PAM, security/_pam_types.h.
const PAM_SUCCESS: c_int = 0;
const PAM_SYSTEM_ERR: c_int = 4;
const PAM_BUF_ERR: c_int = 5;
const PAM_PERM_DENIED: c_int = 6;
const PAM_AUTH_ERR: c_int = 7;
const PAM_CRED_INSUFFICIENT: c_int = 8;
const PAM_USER_UNKNOWN: c_int = 10;
const PAM_MAXTRIES: c_int = 11;
const PAM_NEW_AUTHTOK_REQD: c_int = 12;
const PAM_ACCT_EXPIRED: c_int = 13;
const PAM_CONV_ERR: c_int = 19;
const PAM_AUTHTOK_EXPIRED: c_int = 27;
const PAM_SILENT: c_int = 0x8000;
const PAM_DISALLOW_NULL_AUTHTOK: c_int = 0x0001;
const PAM_USER: c_int = 2;
const PAM_TTY: c_int = 3;
const PAM_RHOST: c_int = 4;
const PAM_FAIL_DELAY: c_int = 10;
const PAM_PROMPT_ECHO_OFF: c_int = 1;
const PAM_ERROR_MSG: c_int = 3;
const PAM_TEXT_INFO: c_int = 4;
const KNOWN_STYLES: [c_int; 3] = [PAM_PROMPT_ECHO_OFF, PAM_ERROR_MSG, PAM_TEXT_INFO];

/// `PAM_MAX_NUM_MSG`
const MESSAGES_MAX: usize = 32;
