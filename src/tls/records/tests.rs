use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;

const LAYOUTS: [Layout; 3] = [Layout::Tls13, Layout::Tls12Gcm, Layout::Tls12ChaCha];

fn secrets(layout: Layout) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::new([9; NONCE_LEN]));
    match layout {
        Layout::Tls12ChaCha => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        _ => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
    }
}

/// Two that understand each other.
fn pair(layout: Layout) -> (Sealer, Opener) {
    let (secrets, is_tls13) = (secrets(layout), layout == Layout::Tls13);
    let sealer = Sealer::new(&secrets, 5, is_tls13).expect("keys");
    let opener = Opener::new(&secrets, 5, is_tls13).expect("keys");
    assert_eq!((sealer.0.layout, opener.key.layout), (layout, layout));
    (sealer, opener)
}

/// Content in records.
fn sealed(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
    let mut records = vec![0; sealer.sealed_length(content.len())];
    let mut rest = content;
    for place in sealer.places(content.len()) {
        let (part, behind) = rest.split_at(place.len());
        records[place].copy_from_slice(part);
        rest = behind;
    }
    assert!(rest.is_empty());
    sealer.seal(&mut records, content.len()).expect("numbers");
    records
}

fn sealed_as(sealer: &mut Sealer, kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    let sealed = sealer.seal_behind(kind, content, &mut record);
    sealed.expect("numbers");
    record
}

/// A record of any kind around anything: in TLS 1.3 content, type and padding.
fn forged(sealer: &mut Sealer, kind: u8, inner: &[u8]) -> Vec<u8> {
    let key = &mut sealer.0;
    let explicit = match key.layout {
        Layout::Tls12Gcm => key.nonce()[4..].to_vec(),
        _ => Vec::new(),
    };
    let length = explicit.len() + inner.len() + TAG_BYTES;
    let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
    let header = [kind, 3, 3, high, low];
    let (additional, range) = key.additional(header, inner.len());
    let mut text = inner.to_vec();
    let nonce = Nonce::assume_unique_for_key(key.nonce());
    let sealed = key
        .aead
        .seal_in_place_append_tag(nonce, Aad::from(&additional[range]), &mut text);
    sealed.expect("sealed");
    key.advance().expect("a number");
    [&header[..], &explicit, &text].concat()
}

fn room() -> Vec<u8> {
    Vec::with_capacity(1 << 20)
}

/// What one record is found to be.
fn opened(opener: &mut Opener, record: &[u8]) -> Result<Content, RecordError> {
    let mut plain = room();
    match opener.open(record, &mut plain)? {
        Opened::Record(length, content) => {
            assert_eq!(length, record.len());
            let count = match content {
                Content::Data(count) => count,
                _ => 0,
            };
            assert_eq!(plain.len(), count);
            Ok(content)
        }
        other => panic!("{other:?}"),
    }
}

/// Opens all that is there, received in pieces of these sizes.
fn open_all(
    opener: &mut Opener,
    records: &[u8],
    mut pieces: impl Iterator<Item = usize>,
) -> Result<Vec<u8>, RecordError> {
    let (mut plain, mut at, mut come) = (room(), 0, 0);
    loop {
        match opener.open(&records[at..come], &mut plain)? {
            Opened::Record(length, _) => at += length,
            Opened::NoRoom => panic!("no room"),
            Opened::Incomplete if come == records.len() => return Ok(plain),
            Opened::Incomplete => {
                let piece = pieces.next().expect("endless pieces");
                come = records.len().min(come + piece);
            }
        }
    }
}

#[test]
fn what_is_sealed_is_opened() {
    let all: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    for layout in LAYOUTS {
        for length in [0, 1, 16_383, 16_384, 16_385, 32_768, 100_000] {
            let (mut sealer, mut opener) = pair(layout);
            let records = sealed(&mut sealer, &all[..length]);
            assert_eq!(records.len(), sealer.sealed_length(length));
            let plain = open_all(&mut opener, &records, std::iter::repeat(70_000));
            assert!(plain == Ok(all[..length].to_vec()), "{layout:?} {length}");
        }
    }
}

#[test]
fn a_record_is_opened_only_if_its_content_fits() {
    for layout in LAYOUTS {
        let (mut sealer, mut opener) = pair(layout);
        let record = sealed(&mut sealer, &[1; 1000]);
        let mut plain = Vec::with_capacity(999);
        assert_eq!(opener.open(&record, &mut plain), Ok(Opened::NoRoom));
        assert!(plain.is_empty());
        assert_eq!(opener.content_length(&record), Some(1000));
        assert_eq!(opener.content_length(&record[..4]), None);
        assert_eq!(opened(&mut opener, &record), Ok(Content::Data(1000)));
    }
}

#[test]
fn a_record_that_was_changed_is_refused() {
    for layout in LAYOUTS {
        let (mut sealer, _) = pair(layout);
        let record = sealed(&mut sealer, b"content");
        for at in 0..record.len() {
            let (_, mut opener) = pair(layout);
            let mut changed = record.clone();
            changed[at] ^= 1;
            let mut plain = room();
            match opener.open(&changed, &mut plain) {
                Err(RecordError::BadMac | RecordError::Unexpected | RecordError::TooLong) => {}
                Ok(Opened::Incomplete) if at == 3 || at == 4 => {}
                other => panic!("{layout:?} {at}: {other:?}"),
            }
            assert!(plain.is_empty());
        }
        assert_eq!(RecordError::BadMac.alert(), Some(20));
    }
}

#[test]
fn records_in_another_order_are_refused() {
    for layout in LAYOUTS {
        let (mut sealer, mut opener) = pair(layout);
        let first = sealed(&mut sealer, b"first");
        let second = sealed(&mut sealer, b"second");
        assert_eq!(opened(&mut opener, &second), Err(RecordError::BadMac));
        let (_, mut opener) = pair(layout);
        opened(&mut opener, &first).expect("the first");
        assert_eq!(opened(&mut opener, &first), Err(RecordError::BadMac));
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_before_it_has_come() {
    for (layout, longest) in [
        (Layout::Tls13, 16_384 + 17),
        (Layout::Tls12Gcm, 16_384 + 24),
        (Layout::Tls12ChaCha, 16_384 + 16),
    ] {
        let (_, mut opener) = pair(layout);
        let header = |length: usize| {
            let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
            [23, 3, 3, high, low]
        };
        let mut plain = room();
        let longest = opener.open(&header(longest), &mut plain);
        assert_eq!(longest, Ok(Opened::Incomplete), "{layout:?}");
        for length in [16_384 + 25, 16_384 + 257, 16_384 + 2049, 65_535] {
            let longer = opener.open(&header(length), &mut plain);
            assert_eq!(longer, Err(RecordError::TooLong), "{layout:?}");
        }
        assert_eq!(RecordError::TooLong.alert(), Some(22));
        // What has no room for a tag is not sealed.
        let (_, mut opener) = pair(layout);
        let short = opener.open(&[23, 3, 3, 0, 15], &mut plain);
        assert_eq!(short, Err(RecordError::BadMac));
    }
}

#[test]
fn the_largest_record_is_taken_with_a_full_content() {
    for layout in LAYOUTS {
        let (mut sealer, mut opener) = pair(layout);
        let mut inner = vec![1; CONTENT_BYTES_MAX];
        inner.extend((layout == Layout::Tls13).then_some(23));
        let record = forged(&mut sealer, 23, &inner);
        let content = opened(&mut opener, &record);
        assert_eq!(content, Ok(Content::Data(CONTENT_BYTES_MAX)));
    }
}

#[test]
fn padding_is_taken_off() {
    for padding in [1, 100, 16_000] {
        let (mut sealer, mut opener) = pair(Layout::Tls13);
        let inner = [b"zero \0\0\x17".to_vec(), vec![0; padding]].concat();
        let record = forged(&mut sealer, 23, &inner);
        let mut plain = room();
        let content = opener.open(&record, &mut plain);
        assert_eq!(content, Ok(Opened::Record(record.len(), Content::Data(7))));
        assert_eq!(plain, b"zero \0\0");
    }
}

#[test]
fn nothing_but_padding_is_refused() {
    for length in [0, 1, 1000] {
        let (mut sealer, mut opener) = pair(Layout::Tls13);
        let record = forged(&mut sealer, 23, &vec![0; length]);
        assert_eq!(opened(&mut opener, &record), Err(RecordError::Unexpected));
        assert_eq!(RecordError::Unexpected.alert(), Some(10));
    }
}

#[test]
fn empty_records_are_taken_but_not_without_end() {
    for layout in LAYOUTS {
        let (mut sealer, mut opener) = pair(layout);
        for _ in 0..3 {
            for _ in 0..IDLE_RECORDS_MAX {
                let empty = sealed_as(&mut sealer, Kind::Data, b"");
                assert_eq!(opened(&mut opener, &empty), Ok(Content::Data(0)));
            }
            let full = sealed_as(&mut sealer, Kind::Data, b"x");
            assert_eq!(opened(&mut opener, &full), Ok(Content::Data(1)));
        }
        let mut last = Ok(Content::Nothing);
        for _ in 0..=IDLE_RECORDS_MAX {
            let empty = sealed_as(&mut sealer, Kind::Data, b"");
            last = opened(&mut opener, &empty);
        }
        assert_eq!(last, Err(RecordError::TooManyIdle), "{layout:?}");
    }
}

#[test]
fn records_of_other_types_are_refused() {
    for layout in LAYOUTS {
        for kind in [0, 20, 24, 255] {
            let (mut sealer, mut opener) = pair(layout);
            // In TLS 1.3 inside, and outside, where a ChangeCipherSpec would not even be sealed.
            let record = match layout {
                Layout::Tls13 if kind > 0 => forged(&mut sealer, 23, &[1, kind]),
                _ => forged(&mut sealer, kind, b"\x01"),
            };
            let refused = opened(&mut opener, &record);
            assert_eq!(refused, Err(RecordError::Unexpected), "{layout:?} {kind}");
        }
    }
    let (_, mut opener) = pair(Layout::Tls13);
    let refused = opener.open(&[20, 3, 3, 0, 1, 1], &mut room());
    assert_eq!(refused, Err(RecordError::Unexpected));
}

#[test]
fn the_end_is_told_by_close_notify() {
    for layout in LAYOUTS {
        for level in [1, 2] {
            let (mut sealer, mut opener) = pair(layout);
            let record = sealed_as(&mut sealer, Kind::Alert, &[level, CLOSE_NOTIFY]);
            assert_eq!(opened(&mut opener, &record), Ok(Content::End));
        }
    }
}

#[test]
fn a_fatal_alert_is_an_error_and_a_warning_is_one_in_tls_1_3() {
    let alert = |layout, content: &[u8]| {
        let (mut sealer, mut opener) = pair(layout);
        let record = sealed_as(&mut sealer, Kind::Alert, content);
        opened(&mut opener, &record)
    };
    for layout in LAYOUTS {
        assert_eq!(alert(layout, &[2, 40]), Err(RecordError::Alert(40)));
        assert_eq!(alert(layout, &[3, 40]), Err(RecordError::IllegalValue));
        assert_eq!(alert(layout, &[1]), Err(RecordError::Malformed));
        assert_eq!(alert(layout, &[1, 0, 0]), Err(RecordError::Malformed));
        assert_eq!(alert(layout, &[]), Err(RecordError::Unexpected));
        assert_eq!(alert(layout, &[1, USER_CANCELED]), Ok(Content::Nothing));
    }
    assert_eq!(RecordError::Alert(40).alert(), None);
    assert_eq!(alert(Layout::Tls13, &[1, 41]), Err(RecordError::Alert(41)));
    assert_eq!(alert(Layout::Tls12Gcm, &[1, 41]), Ok(Content::Nothing));
    // However many warnings there are, the bound on idle records holds.
    let (mut sealer, mut opener) = pair(Layout::Tls12Gcm);
    let mut last = Ok(Content::Nothing);
    for _ in 0..=IDLE_RECORDS_MAX {
        let warning = sealed_as(&mut sealer, Kind::Alert, &[1, 41]);
        last = opened(&mut opener, &warning);
    }
    assert_eq!(last, Err(RecordError::TooManyIdle));
}

#[test]
fn a_key_update_may_come_in_pieces_with_nothing_between_or_behind() {
    let messages = |parts: &[(Kind, &[u8])]| {
        let (mut sealer, mut opener) = pair(Layout::Tls13);
        let mut last = Ok(Content::Nothing);
        for (kind, content) in parts {
            let record = sealed_as(&mut sealer, *kind, content);
            last = opened(&mut opener, &record);
        }
        last
    };
    let handshake = |content| (Kind::Handshake, content);
    for (message, what) in [
        (&[24, 0, 0, 1, 0], Ok(Content::KeyUpdate(false))),
        (&[24, 0, 0, 1, 1], Ok(Content::KeyUpdate(true))),
        (&[24, 0, 0, 1, 2], Err(RecordError::IllegalValue)),
        (&[24, 0, 0, 2, 0], Err(RecordError::Malformed)),
    ] {
        let message: &[u8] = message;
        assert_eq!(messages(&[handshake(message)]), what);
        for cut in 1..5 {
            let (head, tail) = message.split_at(cut);
            assert_eq!(messages(&[handshake(head), handshake(tail)]), what);
        }
    }
    let refused = Err(RecordError::Unexpected);
    let interleaved = [handshake(&[24, 0][..]), (Kind::Data, b"x")];
    assert_eq!(messages(&interleaved), refused);
    assert_eq!(messages(&[handshake(&[24, 0, 0, 1, 0, 24])]), refused);
    assert_eq!(messages(&[handshake(&[])]), refused);
    // A ClientHello, a NewSessionTicket, a Certificate.
    for kind in [1, 4, 11] {
        let (short, long) = ([kind, 0, 0, 1, 0], [kind; 300]);
        assert_eq!(messages(&[(Kind::Handshake, &short)]), refused);
        assert_eq!(messages(&[(Kind::Handshake, &long)]), refused);
    }
}

#[test]
fn renegotiation_is_asked_for_once_at_most() {
    for layout in [Layout::Tls12Gcm, Layout::Tls12ChaCha] {
        let (mut sealer, mut opener) = pair(layout);
        let mut ask = |kind| {
            let record = sealed_as(&mut sealer, Kind::Handshake, &[kind, 0, 0, 1, 0]);
            opened(&mut opener, &record)
        };
        assert_eq!(ask(1), Ok(Content::Renegotiation));
        assert_eq!(ask(1), Err(RecordError::Unexpected));
        assert_eq!(ask(24), Err(RecordError::Unexpected), "no KeyUpdate");
    }
}

#[test]
fn the_numbers_of_records_end() {
    for layout in LAYOUTS {
        let (mut sealer, mut opener) = pair(layout);
        (sealer.0.sequence, opener.key.sequence) = (u64::MAX, u64::MAX);
        let mut record = Vec::new();
        let sealed = sealer.seal_behind(Kind::Data, b"x", &mut record);
        assert_eq!(sealed, Err(RecordError::Exhausted));
        assert_eq!(opened(&mut opener, &record), Err(RecordError::Exhausted));
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(LAYOUTS[0]), Just(LAYOUTS[1]), Just(LAYOUTS[2])]
}

proptest! {
    #[test]
    fn wherever_the_stream_is_cut_the_content_is_the_same(
        layout in layout(),
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..8),
        pieces in prop::collection::vec(1usize..4000, 1..8),
    ) {
        let (mut sealer, mut opener) = pair(layout);
        let records: Vec<u8> = contents
            .iter()
            .flat_map(|content| sealed_as(&mut sealer, Kind::Data, content))
            .collect();
        let plain = open_all(&mut opener, &records, pieces.into_iter().cycle());
        prop_assert_eq!(plain, Ok(contents.concat()));
    }

    #[test]
    fn whatever_comes_nothing_panics_and_nothing_is_believed(
        layout in layout(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        kind in 20u8..25,
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (_, mut opener) = pair(layout);
        let plain = open_all(&mut opener, &bytes, std::iter::repeat(7));
        prop_assert!(plain.is_err() || plain == Ok(Vec::new()));
        let record = [&[kind, 3, 3, 0, body.len() as u8][..], &body].concat();
        prop_assert!(opener.open(&record, &mut room()).is_err());
    }

    #[test]
    fn whatever_a_peer_with_the_keys_sends_nothing_panics(
        layout in layout(),
        records in prop::collection::vec(
            (20u8..25, prop::collection::vec(0u8..30, 0..12)), 0..20),
    ) {
        let (mut sealer, mut opener) = pair(layout);
        let mut plain = room();
        for (kind, inner) in records {
            let outer = if layout == Layout::Tls13 { 23 } else { kind };
            let record = forged(&mut sealer, outer, &inner);
            let before = plain.len();
            match opener.open(&record, &mut plain) {
                Ok(Opened::Record(length, content)) => {
                    prop_assert_eq!(length, record.len());
                    let count = match content {
                        Content::Data(count) => count,
                        _ => 0,
                    };
                    prop_assert_eq!(&plain[before..], &inner[..count]);
                }
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(_) => {
                    prop_assert_eq!(plain.len(), before);
                    break;
                }
            }
        }
    }
}
