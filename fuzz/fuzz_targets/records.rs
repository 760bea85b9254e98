//! Records of protected data connections: what is sealed is opened, whatever comes behind it; nothing else
//! is believed, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::tls::{Content, Opened, Opener, Sealer};
use rustls::ConnectionTrafficSecrets as Secrets;
use rustls::crypto::cipher::{AeadKey, Iv};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, length], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let is_tls13 = kind & 1 == 1;
    let (key, iv) = (AeadKey::from([1; 32]), Iv::new([2; 12]));
    let secrets = match kind & 2 {
        0 => Secrets::Aes256Gcm { key, iv },
        _ => Secrets::Chacha20Poly1305 { key, iv },
    };
    let mut sealer = Sealer::new(&secrets, 0, is_tls13).expect("keys");
    let mut opener = Opener::new(&secrets, 0, is_tls13).expect("keys");
    let (content, behind) = bytes.split_at(bytes.len().min(usize::from(length)));
    let mut records = vec![0; sealer.sealed_length(content.len())];
    for place in sealer.places(content.len()) {
        records[place].copy_from_slice(content);
    }
    sealer.seal(&mut records, content.len()).expect("numbers");
    records.extend_from_slice(behind);
    let (mut plain, mut at) = (Vec::with_capacity(1 << 15), 0);
    loop {
        match opener.open(&records[at..], &mut plain) {
            Ok(Opened::Record(length, Content::Data(_))) => at += length,
            Ok(Opened::Incomplete) | Err(_) => break,
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(plain, content);
});
