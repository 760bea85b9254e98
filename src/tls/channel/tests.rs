use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite, version,
};

use super::super::{Handshake, TlsError};
use super::*;

/// rustls as the client, and this side with what is on its way to it.
struct Pair {
    client: ClientConnection,
    channel: Channel,
    /// What has come behind the handshake.
    came: Vec<u8>,
}

/// Every suite of both versions.
fn suites() -> Vec<SupportedCipherSuite> {
    let suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().copied();
    // The certificate is one of ECDSA.
    let is_usable = |suite: &SupportedCipherSuite| !format!("{suite:?}").contains("_RSA_");
    let suites: Vec<_> = suites.filter(is_usable).collect();
    assert_eq!(suites.len(), 6);
    suites
}

fn suites_of(is_tls13: bool) -> impl Iterator<Item = SupportedCipherSuite> {
    let suites = suites().into_iter();
    suites.filter(move |suite| suite.tls13().is_some() == is_tls13)
}

fn configs(suite: SupportedCipherSuite) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..aws_lc_rs::default_provider()
    });
    let versions = match suite.tls13() {
        Some(_) => [&version::TLS13],
        None => [&version::TLS12],
    };
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let certified = certified.expect("a certificate");
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

fn client(config: Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    client.set_buffer_limit(None);
    client
}

/// What the client sends now.
fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

/// Gives the client what is on its way to it; what it reads then.
fn give(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut read = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("memory");
        client.process_new_packets()?;
        match client.reader().read_to_end(&mut read) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    Ok(read)
}

/// Shakes hands; the client's bytes come in pieces of this size.
fn shake_hands(
    client: &mut ClientConnection,
    config: Arc<ServerConfig>,
    piece: usize,
) -> Result<(Handshake, Vec<u8>), TlsError> {
    let mut handshake = Handshake::new(config)?;
    let mut came = Vec::new();
    while !handshake.is_over() {
        let sent = sent_by(client);
        assert!(!sent.is_empty(), "nobody says anything");
        for piece in sent.chunks(piece) {
            came.extend_from_slice(piece);
            let used = handshake.receive(&mut came)?;
            came.drain(..used);
        }
        give(client, &handshake.take_output()).expect("the server's part");
    }
    Ok((handshake, came))
}

fn pair(suite: SupportedCipherSuite) -> Pair {
    let (ours, theirs) = configs(suite);
    let mut client = client(ours);
    let (handshake, came) = shake_hands(&mut client, theirs, usize::MAX).expect("a handshake");
    assert!(!handshake.is_resumed());
    Pair {
        client,
        channel: handshake.finish(u64::MAX).expect("keys"),
        came,
    }
}

impl Pair {
    /// Opens what the client has sent, and answers.
    fn receive(&mut self) -> Result<(Vec<u8>, bool), RecordError> {
        self.came.extend(sent_by(&mut self.client));
        let (mut plain, mut at) = (Vec::with_capacity(1 << 20), 0);
        let mut has_ended = false;
        while let Opened::Record(length, content) =
            self.channel.open(&self.came[at..], &mut plain)?
        {
            at += length;
            self.channel.answer()?;
            if content == Content::End {
                has_ended = true;
                break;
            }
        }
        self.came.drain(..at);
        Ok((plain, has_ended))
    }

    /// Gives the client what is to be sent; what it reads then.
    fn send(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let sent = self.channel.unsent().to_vec();
        self.channel.sent(sent.len());
        assert!(self.channel.is_sent());
        give(&mut self.client, &sent)
    }

    fn client_writes(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).expect("memory");
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i % 251) as u8).collect()
}

#[test]
fn every_suite_carries_both_ways() {
    let big = noise(100_000);
    for suite in suites() {
        let mut pair = pair(suite);
        for round in 0..3 {
            pair.client_writes(&big);
            let (plain, has_ended) = pair.receive().expect("records");
            assert!(plain == big && !has_ended, "{suite:?} {round}");
            pair.channel.write(&big[round..]).expect("sealed");
            assert!(pair.send().expect("records") == big[round..], "{suite:?}");
        }
        pair.client.send_close_notify();
        assert_eq!(pair.receive(), Ok((Vec::new(), true)), "{suite:?}");
        pair.channel.close();
        assert_eq!(pair.send(), Ok(Vec::new()));
        assert_eq!(
            pair.client.reader().read(&mut [0; 8]).ok(),
            Some(0),
            "the end"
        );
    }
}

#[test]
fn a_handshake_in_pieces_of_any_size_leaves_what_is_behind_it() {
    for suite in suites() {
        let (ours, theirs) = configs(suite);
        for piece in [1, 2, 5, 7, 100, 1000, usize::MAX] {
            let mut client = client(Arc::clone(&ours));
            // rustls keeps it back until its Finished, and sends both together.
            client.writer().write_all(b"behind").expect("memory");
            let shaken = shake_hands(&mut client, Arc::clone(&theirs), piece);
            let (handshake, came) = shaken.expect("a handshake");
            let channel = handshake.finish(u64::MAX).expect("keys");
            let mut pair = Pair {
                client,
                channel,
                came,
            };
            pair.client.send_close_notify();
            let plain = pair.receive();
            assert_eq!(plain, Ok((b"behind".to_vec(), true)), "{suite:?} {piece}");
        }
    }
}

#[test]
fn an_empty_file_ends_with_the_handshake() {
    for suite in suites() {
        let (ours, theirs) = configs(suite);
        let mut client = client(ours);
        let mut handshake = Handshake::new(theirs).expect("a server");
        let mut came = Vec::new();
        while !handshake.is_over() {
            let mut sent = sent_by(&mut client);
            if !client.is_handshaking() {
                client.send_close_notify();
                sent.extend(sent_by(&mut client));
            }
            came.extend(sent);
            let used = handshake.receive(&mut came).expect("a handshake");
            came.drain(..used);
            give(&mut client, &handshake.take_output()).expect("the server's part");
        }
        let mut channel = handshake.finish(u64::MAX).expect("keys");
        if came.is_empty() {
            // TLS 1.2: the server has the last word.
            client.send_close_notify();
            came = sent_by(&mut client);
        }
        let opened = channel.open(&came, &mut Vec::with_capacity(1 << 15));
        assert_eq!(opened, Ok(Opened::Record(came.len(), Content::End)));
    }
}

#[test]
fn sessions_are_resumed() {
    for suite in suites() {
        let (ours, theirs) = configs(suite);
        for round in 0..2 {
            let mut client = client(Arc::clone(&ours));
            let shaken = shake_hands(&mut client, Arc::clone(&theirs), usize::MAX);
            let (handshake, came) = shaken.expect("a handshake");
            assert_eq!(handshake.is_resumed(), round == 1, "{suite:?}");
            let channel = handshake.finish(u64::MAX).expect("keys");
            let mut pair = Pair {
                client,
                channel,
                came,
            };
            pair.client_writes(b"up");
            assert_eq!(pair.receive(), Ok((b"up".to_vec(), false)), "{suite:?}");
            pair.channel.write(b"down").expect("sealed");
            assert_eq!(pair.send(), Ok(b"down".to_vec()), "{suite:?}");
        }
    }
}

#[test]
fn a_client_is_told_why_its_handshake_fails() {
    let (ours, _) = configs(suites_of(true).next().expect("a suite"));
    let (_, theirs) = configs(suites_of(false).next().expect("a suite"));
    let mut client = client(ours);
    let mut handshake = Handshake::new(Arc::clone(&theirs)).expect("a server");
    let mut came = sent_by(&mut client);
    assert!(handshake.receive(&mut came).is_err());
    let told = give(&mut client, &handshake.take_output());
    assert!(
        matches!(told, Err(rustls::Error::AlertReceived(_))),
        "{told:?}"
    );
    // What is no TLS at all is seen by its first bytes.
    let mut handshake = Handshake::new(theirs).expect("a server");
    assert!(
        handshake
            .receive(&mut b"GET / HTTP/1.1\r\n".to_vec())
            .is_err()
    );
    assert!(!handshake.take_output().is_empty());
}

#[test]
fn a_client_that_leaves_in_the_midst_is_no_end() {
    for suite in suites() {
        let (ours, theirs) = configs(suite);
        let mut client = client(ours);
        let mut handshake = Handshake::new(theirs).expect("a server");
        let mut came = sent_by(&mut client);
        handshake.receive(&mut came).expect("a ClientHello");
        assert!(!handshake.is_over());
        let mut end = vec![21, 3, 3, 0, 2, 1, 0];
        let received = handshake.receive(&mut end);
        assert!(received.is_err() || !handshake.is_over(), "{suite:?}");
        assert!(handshake.finish(u64::MAX).is_err(), "{suite:?}");
    }
}

#[test]
fn keys_change_when_the_client_changes_its_own() {
    for suite in suites_of(true) {
        let mut pair = pair(suite);
        for round in 0..3u8 {
            pair.client_writes(&[round; 20_000]);
            // rustls asks for the keys of the other side as well.
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.client_writes(&[round + 1; 20_000]);
            let (plain, _) = pair.receive().expect("records");
            let all = [[round; 20_000], [round + 1; 20_000]].concat();
            assert!(plain == all, "{suite:?}");
            assert!(!pair.channel.is_sent(), "an answer");
            pair.send().expect("a KeyUpdate");
            assert_eq!(pair.channel.sealer.sequence(), 0, "new keys");
            pair.channel.write(b"down").expect("sealed");
            assert_eq!(pair.send(), Ok(b"down".to_vec()), "{suite:?}");
        }
    }
}

#[test]
fn many_requests_for_keys_have_one_answer_as_long_as_it_is_not_sent() {
    let suite = suites_of(true).next().expect("a suite");
    let mut pair = pair(suite);
    let mut longest = 0;
    for _ in 0..100 {
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
        pair.client_writes(b"x");
        pair.receive().expect("records");
        longest = longest.max(pair.channel.unsent().len());
    }
    assert!(longest < 100, "{longest} bytes wait");
    pair.send().expect("a KeyUpdate");
    pair.channel.prepare(1).expect("the second answer");
    pair.send().expect("a KeyUpdate");
    pair.channel.write(b"down").expect("sealed");
    assert_eq!(pair.send(), Ok(b"down".to_vec()));
}

#[test]
fn this_side_changes_its_keys_before_they_have_sealed_too_much() {
    for suite in suites_of(true) {
        let mut pair = pair(suite);
        let already = pair.channel.sealer.sequence();
        pair.channel.records_max = already + 4;
        let piece = noise(2 * CONTENT_BYTES_MAX);
        let mut updates = 0;
        for _ in 0..10 {
            pair.channel.prepare(piece.len()).expect("other keys");
            updates += usize::from(!pair.channel.is_sent());
            pair.send().expect("a KeyUpdate");
            pair.channel.write(&piece).expect("sealed");
            assert!(pair.channel.sealer.sequence() < already + 4);
            assert!(pair.send() == Ok(piece.clone()), "{suite:?}");
        }
        assert!(updates >= 5, "{updates}");
    }
}

#[test]
fn tls_1_2_ends_before_its_keys_have_sealed_too_much() {
    for suite in suites_of(false) {
        let mut pair = pair(suite);
        pair.channel.records_max = pair.channel.sealer.sequence() + 3;
        pair.channel.prepare(2 * CONTENT_BYTES_MAX).expect("two");
        pair.channel
            .write(&noise(2 * CONTENT_BYTES_MAX))
            .expect("sealed");
        pair.send().expect("records");
        let refused = pair.channel.prepare(1);
        assert_eq!(refused, Err(RecordError::Exhausted), "{suite:?}");
        let told = pair.send();
        let internal = rustls::AlertDescription::InternalError;
        assert_eq!(told, Err(rustls::Error::AlertReceived(internal)));
    }
}

#[test]
fn limits_are_those_of_the_suites() {
    for suite in suites() {
        let limit = pair(suite).channel.records_max;
        let is_gcm = format!("{suite:?}").contains("GCM");
        assert_eq!(limit, if is_gcm { 1 << 24 } else { u64::MAX }, "{suite:?}");
    }
}

#[test]
fn the_client_is_told_what_is_wrong_with_its_records() {
    for suite in suites() {
        let mut pair = pair(suite);
        pair.client_writes(b"content");
        let mut changed = sent_by(&mut pair.client);
        *changed.last_mut().expect("a record") ^= 1;
        pair.came = changed;
        assert_eq!(pair.receive(), Err(RecordError::BadMac), "{suite:?}");
        let told = pair.send();
        let mac = rustls::AlertDescription::BadRecordMac;
        assert_eq!(told, Err(rustls::Error::AlertReceived(mac)), "{suite:?}");
        // Nothing comes behind it.
        pair.channel.close();
        assert!(pair.channel.is_sent());
    }
}

#[test]
fn the_places_that_are_lent_are_those_that_are_sealed() {
    for suite in suites() {
        let mut pair = pair(suite);
        let big = noise(40_000);
        let (mut outbox, places) = pair.channel.lend(big.len());
        let mut rest = &big[..];
        for place in places {
            let (part, behind) = rest.split_at(place.len());
            outbox[place].copy_from_slice(part);
            rest = behind;
        }
        pair.channel.take_back(outbox);
        // A file may be shorter than there was room for.
        for length in [40_000, 16_384, 5] {
            for (place, part) in pair
                .channel
                .places(40_000)
                .zip(big.chunks(CONTENT_BYTES_MAX))
            {
                place.copy_from_slice(part);
            }
            pair.channel.seal(length).expect("sealed");
            assert!(pair.send() == Ok(big[..length].to_vec()), "{suite:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_in_a_handshake_nothing_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in 0usize..400,
        piece in 1usize..200,
    ) {
        let (ours, theirs) = configs(suites()[at % 6]);
        let mut hello = sent_by(&mut client(ours));
        let place = at.min(hello.len());
        let end = (place + bytes.len()).min(hello.len());
        hello.splice(place..end, bytes);
        let mut handshake = Handshake::new(theirs).expect("a server");
        let mut came = Vec::new();
        for piece in hello.chunks(piece) {
            came.extend_from_slice(piece);
            match handshake.receive(&mut came) {
                Ok(used) => drop(came.drain(..used)),
                Err(_) => break,
            }
        }
        prop_assert!(!handshake.is_over());
    }
}

/// Seals one record as the kernel does, which counts its nonces of TLS 1.2 up from a number of its own.
fn seal_as_the_kernel(keys: &TransmitKeys<'_>, kind: u8, content: &[u8], nth: u64) -> Vec<u8> {
    use ::aws_lc_rs::aead;
    let algorithm = match keys.key.len() {
        16 => &aead::AES_128_GCM,
        _ => &aead::AES_256_GCM,
    };
    let key = aead::UnboundKey::new(algorithm, keys.key).expect("a key");
    let sequence = (keys.sequence + nth).to_be_bytes();
    let mut nonce = keys.iv;
    let (mut sealed, outer, mut additional) = (content.to_vec(), keys.is_tls13, Vec::new());
    let mut explicit = Vec::new();
    let length = |around: usize| ((content.len() + around) as u16).to_be_bytes();
    let header = match outer {
        true => [&[23, 3, 3][..], &length(1 + 16)].concat(),
        false => [&[kind, 3, 3][..], &length(8 + 16)].concat(),
    };
    if outer {
        sealed.push(kind);
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(sequence) {
            *byte ^= of_sequence;
        }
        additional.extend(&header);
    } else {
        explicit = (1000 + nth).to_be_bytes().to_vec();
        nonce[4..].copy_from_slice(&explicit);
        additional.extend([&sequence[..], &[kind, 3, 3], &length(0)].concat());
    }
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(additional),
            &mut sealed,
        )
        .expect("a record");
    [header, explicit, sealed].concat()
}

#[test]
fn keys_that_are_given_away_seal_what_the_client_reads() {
    for suite in suites() {
        let is_tls13 = suite.tls13().is_some();
        let mut pair = pair(suite);
        if format!("{suite:?}").contains("CHACHA20") {
            assert!(pair.channel.transmit_keys().is_none(), "{suite:?}");
            continue;
        }
        pair.channel.write(b"not sent").expect("sealed");
        assert!(pair.channel.transmit_keys().is_none(), "{suite:?}");
        pair.send().expect("records");
        pair.channel.give_away();
        for content in [&b"one"[..], b"two"] {
            let keys = pair.channel.transmit_keys().expect("AES-GCM");
            let data = seal_as_the_kernel(&keys, 23, content, 0);
            assert_eq!(
                give(&mut pair.client, &data),
                Ok(content.to_vec()),
                "{suite:?}"
            );
            if !is_tls13 {
                break;
            }
            let told = seal_as_the_kernel(&keys, KEY_UPDATE.kind, KEY_UPDATE.content, 1);
            give(&mut pair.client, &told).expect("a KeyUpdate");
            pair.channel.next_keys().expect("TLS 1.3");
        }
        // Nothing is sealed twice with one number.
        assert!(pair.channel.write(b"more").is_err());
        let keys = pair.channel.transmit_keys().expect("AES-GCM");
        let close = seal_as_the_kernel(&keys, CLOSE.kind, CLOSE.content, u64::from(!is_tls13));
        give(&mut pair.client, &close).expect("close_notify");
        let mut rest = Vec::new();
        assert_eq!(pair.client.reader().read_to_end(&mut rest).ok(), Some(0));
        pair.channel.close();
        assert!(pair.channel.is_sent());
    }
}

#[test]
fn a_client_that_asks_for_keys_is_owed_them_until_they_come() {
    let suite = suites_of(true).next().expect("a suite");
    let mut pair = pair(suite);
    pair.channel.give_away();
    pair.client.refresh_traffic_keys().expect("TLS 1.3");
    pair.receive().expect("a KeyUpdate");
    assert!(pair.channel.owes_keys() && pair.channel.is_sent());
    pair.channel.next_keys().expect("keys");
    assert!(!pair.channel.owes_keys());
}
