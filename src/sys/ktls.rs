//! TLS by the kernel: a TCP socket that makes records out of what is sent on it, be it by send(2),
//! sendfile(2) or splice(2) (Documentation/networking/tls.rst). What is received stays as it comes.
//!
//! | | since Linux |
//! |---|---|
//! | AES-GCM in TLS 1.3, sendfile | 5.1 |
//! | other keys for a socket that has some (key updates of TLS 1.3) | 6.14; EBUSY before |

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsTx, TcpUlp, TlsCryptoInfo};
use zeroize::Zeroize;

use super::check_count;

/// What a kernel with TLS can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// A socket may get other keys (Linux 6.14).
    pub renews: bool,
}

/// Keys of AES-GCM, for what this side sends.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// TLS 1.3; otherwise 1.2.
    pub is_tls13: bool,
    /// 16 or 32 bytes.
    pub key: &'a [u8],
    /// RFC 8446 §5.3; in TLS 1.2 the salt, and what the nonces of the records so far began with.
    pub iv: [u8; 12],
    /// How many records these keys have sealed.
    pub sequence: u64,
}

/// Tries everything on a connection to oneself. Where the module `tls` is not loaded, a process with
/// CAP_NET_ADMIN has the kernel load it by this.
///
/// # Errors
/// ENOENT: this kernel has no TLS, or its module is not loaded; otherwise whatever is in the way.
pub fn probe() -> io::Result<Abilities> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))))?;
    let mut renews = true;
    for (is_tls13, length) in [(false, 16), (false, 32), (true, 16), (true, 32)] {
        let socket = TcpStream::connect(listener.local_addr()?)?;
        attach(&socket)?;
        let keys = Keys {
            is_tls13,
            key: &[0; 32][..length],
            iv: [0; 12],
            sequence: 0,
        };
        set_keys(&socket, &keys)?;
        if is_tls13 {
            renews &= set_keys(&socket, &keys).is_ok();
        }
    }
    Ok(Abilities { renews })
}

/// Makes it possible to set keys. Until then the socket is what it was, except that it cannot be
/// disconnected any more (EOPNOTSUPP).
///
/// # Errors
/// As [`probe`]; ENOTCONN if the connection does not stand any more.
pub fn attach(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, TcpUlp::default(), b"tls")?)
}

/// Seals what is sent from now on. What has been sent leaves as it was.
///
/// # Errors
/// EBUSY: the socket has keys, and cannot get others; otherwise as setsockopt(2).
pub fn set_keys(socket: &impl AsFd, keys: &Keys<'_>) -> io::Result<()> {
    let mut info = info(keys)?;
    let set = setsockopt(socket, TcpTlsTx, &info);
    match &mut info {
        TlsCryptoInfo::Aes128Gcm(info) => info.key.zeroize(),
        TlsCryptoInfo::Aes256Gcm(info) => info.key.zeroize(),
        TlsCryptoInfo::Chacha20Poly1305(info) => info.key.zeroize(),
    }
    Ok(set?)
}

fn info(keys: &Keys<'_>) -> io::Result<TlsCryptoInfo> {
    let version = match keys.is_tls13 {
        true => libc::TLS_1_3_VERSION,
        false => libc::TLS_1_2_VERSION,
    };
    let info = |cipher_type| libc::tls_crypto_info {
        version,
        cipher_type,
    };
    let [s0, s1, s2, s3, nonce @ ..] = keys.iv;
    let (salt, iv) = match keys.is_tls13 {
        true => ([s0, s1, s2, s3], nonce),
        false => ([s0, s1, s2, s3], first_nonce(nonce)),
    };
    let rec_seq = keys.sequence.to_be_bytes();
    if let Ok(key) = keys.key.try_into() {
        return Ok(TlsCryptoInfo::Aes128Gcm(
            libc::tls12_crypto_info_aes_gcm_128 {
                info: info(libc::TLS_CIPHER_AES_GCM_128),
                iv,
                key,
                salt,
                rec_seq,
            },
        ));
    }
    let key = keys.key.try_into();
    let key = key.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(TlsCryptoInfo::Aes256Gcm(
        libc::tls12_crypto_info_aes_gcm_256 {
            info: info(libc::TLS_CIPHER_AES_GCM_256),
            iv,
            key,
            salt,
            rec_seq,
        },
    ))
}

/// RFC 5288 §3: in TLS 1.2 each record brings a part of its nonce, and none may come twice. Until now these
/// were the numbers of the records over that of the keys, so that they share its first bits; the kernel counts
/// up from what it is given, and shall not meet them.
fn first_nonce(mut of_keys: [u8; 8]) -> [u8; 8] {
    of_keys[0] ^= 0x80;
    of_keys
}

/// Sends a record that is not data, such as an alert (21) or a message of a handshake (22): whole or not at
/// all, without waiting and without SIGPIPE. What was sent before has to be in records of its own, which is so
/// when the call that sent it took all that it was given: otherwise older kernels send this as data.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when nothing fits; otherwise as sendmsg(2).
pub fn send_record(socket: &impl AsFd, kind: u8, content: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        kind: u8,
    }
    // SAFETY: all zeros is a valid cmsghdr, which is made of integers.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    // CMSG_LEN(1): the header's size is a multiple of its alignment, so nothing lies between the two.
    header.cmsg_len = (size_of::<libc::cmsghdr>() + 1) as _;
    header.cmsg_level = libc::SOL_TLS;
    header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
    let mut control = Control { header, kind };
    // The kernel only reads what these point to.
    let mut slice = libc::iovec {
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: content.len(),
    };
    // SAFETY: all zeros is a valid msghdr, which is made of pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: the message points to one slice of the length given and to one control message, which is
        // padded to its alignment; all of it outlives the call.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
        match check_count(sent) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The kernel takes all of what fits into one record.
            result => return result.map(drop),
        }
    }
}

/// Whether an error says that a socket with keys is of no more use: what TCP said of its peer is lost by that. A
/// file system whose checksums are wrong says the same (EFSBADCRC).
pub fn is_broken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADMSG)
}

/// Whether the socket has so much room that closing it loses nothing. Records that TCP had no room for are
/// thrown away by close(2); there is one at the most, since another one is only made when there is room.
pub fn may_be_closed(socket: &impl AsFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call; a timeout of 0 does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn keys(key: &[u8], is_tls13: bool) -> Keys<'_> {
        Keys {
            is_tls13,
            key,
            iv: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            sequence: 0x0102,
        }
    }

    #[test]
    fn keys_are_laid_out_as_the_kernel_has_them() {
        let Ok(TlsCryptoInfo::Aes128Gcm(info)) = info(&keys(&[7; 16], true)) else {
            panic!("another cipher");
        };
        assert_eq!((info.info.version, info.info.cipher_type), (0x0304, 51));
        assert_eq!((info.key, info.salt), ([7; 16], [1, 2, 3, 4]));
        assert_eq!(info.iv, [5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(info.rec_seq, [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(size_of_val(&info), 40);

        let Ok(TlsCryptoInfo::Aes256Gcm(info)) = super::info(&keys(&[7; 32], true)) else {
            panic!("another cipher");
        };
        assert_eq!((info.info.version, info.info.cipher_type), (0x0304, 52));
        assert_eq!((info.key, info.salt), ([7; 32], [1, 2, 3, 4]));
        assert_eq!(size_of_val(&info), 56);

        assert!(super::info(&keys(&[7; 24], true)).is_err());
    }

    #[test]
    fn no_nonce_of_tls_1_2_comes_twice() {
        for of_keys in [0, 1, 2, 3, u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1] {
            let mut keys = keys(&[7; 16], false);
            keys.iv[4..].copy_from_slice(&of_keys.to_be_bytes());
            let Ok(TlsCryptoInfo::Aes128Gcm(info)) = info(&keys) else {
                panic!("another cipher");
            };
            assert_eq!(info.info.version, 0x0303);
            let first = u64::from_be_bytes(info.iv);
            // Those of this side's first records, and those of the kernel's.
            let before: Vec<u64> = (0..1000).map(|sequence| of_keys ^ sequence).collect();
            for count in (0..2000).chain((1 << 24) - 2000..1 << 24) {
                assert!(
                    !before.contains(&first.wrapping_add(count)),
                    "{of_keys} {count}"
                );
            }
        }
    }

    #[test]
    fn a_kernel_without_tls_says_so() {
        match probe() {
            Ok(_) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}"),
        }
    }

    /// What the kernel has sealed is sealed (scripts/test-ktls looks into it).
    #[test]
    fn a_socket_seals_where_the_kernel_can() {
        if probe().is_err() {
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let writer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it");
        let (mut reader, _) = listener.accept().expect("a connection");
        attach(&writer).expect("TLS");
        set_keys(&writer, &keys(&[7; 32], true)).expect("keys");
        send_record(&writer, 21, &[1, 0]).expect("an alert");
        assert!(may_be_closed(&writer));
        let mut record = [0; 5 + 2 + 1 + 16];
        reader.read_exact(&mut record).expect("a record");
        assert_eq!(record[..5], [23, 3, 3, 0, 19]);
    }
}
