//! Digests against published vectors, and sizes in TYPE A.

use super::*;
use crate::proto::argument::HashAlgorithm;
use crate::storage::{ASCII_SIZE_MAX, Digest};
use crate::sys::worker::Workers;

#[test]
fn digests_are_those_of_the_standards() {
    run(|tree| async move {
        let workers = Workers::start("digest-test", 1, 4).unwrap();
        tree.write("abc", "abc");
        tree.write("digits", "123456789");
        tree.write("empty", "");
        for (path, algorithm, hex) in [
            // The check value of CRC-32/ISO-HDLC.
            ("digits", HashAlgorithm::Crc32, "cbf43926"),
            ("empty", HashAlgorithm::Crc32, "00000000"),
            // RFC 1321 §A.5.
            (
                "abc",
                HashAlgorithm::Md5,
                "900150983cd24fb0d6963f7d28e17f72",
            ),
            // RFC 3174 §7.3.
            (
                "abc",
                HashAlgorithm::Sha1,
                "a9993e364706816aba3e25717850c26c9cd0d89d",
            ),
            // RFC 6234 §8.5.
            (
                "abc",
                HashAlgorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "abc",
                HashAlgorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let digest = tree
                .root
                .digest(&workers, &at(path), algorithm, None, None)
                .await;
            let end = tree.read(path).len() as u64;
            let expected = Digest {
                hex: hex.to_owned(),
                start: 0,
                end,
            };
            assert_eq!(digest, Ok(expected), "{path} {algorithm:?}");
        }
    });
}

#[test]
fn parts_of_files_have_digests_too() {
    run(|tree| async move {
        let workers = Workers::start("digest-test", 1, 4).unwrap();
        tree.write("file", "xxabcyy");
        let algorithm = HashAlgorithm::Md5;
        let digest = async |start, end| {
            tree.root
                .digest(&workers, &at("file"), algorithm, start, end)
                .await
        };
        let abc = digest(Some(2), Some(5)).await.unwrap();
        assert_eq!(abc.hex, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!((abc.start, abc.end), (2, 5));
        let nothing = digest(Some(7), None).await.unwrap();
        assert_eq!(nothing.hex, "d41d8cd98f00b204e9800998ecf8427e");
        for (start, end) in [(Some(8), None), (None, Some(8)), (Some(3), Some(2))] {
            assert_eq!(digest(start, end).await, Err(Failure::OffsetBeyondEnd));
        }
    });
}

#[test]
fn a_file_of_many_pieces_is_digested_whole() {
    run(|tree| async move {
        let workers = Workers::start("digest-test", 1, 4).unwrap();
        let content: Vec<u8> = (0..9_000_001_u32).map(|n| (n / 7) as u8).collect();
        tree.write("big", &content);
        let algorithm = HashAlgorithm::Crc32;
        let digest = tree
            .root
            .digest(&workers, &at("big"), algorithm, None, None)
            .await
            .unwrap();
        assert_eq!(digest.hex, format!("{:08x}", crc32fast::hash(&content)));
    });
}

#[test]
fn only_files_have_digests() {
    run(|tree| async move {
        let workers = Workers::start("digest-test", 1, 4).unwrap();
        tree.directory("directory");
        tree.fifo("fifo");
        for (path, failure) in [
            ("directory", Failure::IsADirectory),
            ("fifo", Failure::NotAFile),
            ("missing", Failure::NotFound),
        ] {
            let algorithm = HashAlgorithm::Sha256;
            let digest = tree
                .root
                .digest(&workers, &at(path), algorithm, None, None)
                .await;
            assert_eq!(digest, Err(failure), "{path}");
            let size = tree.root.ascii_size(&workers, &at(path)).await;
            assert_eq!(size, Err(failure), "{path}");
        }
    });
}

#[test]
fn sizes_in_type_a_are_those_of_the_transfer() {
    run(|tree| async move {
        let workers = Workers::start("digest-test", 1, 4).unwrap();
        let mut edges = vec![b'x'; 5_000_000];
        for at in [0, 1, 131_071, 131_072, 4_194_303, 4_194_304, 4_999_999] {
            edges[at] = b'\n';
        }
        edges[262_143] = b'\r';
        edges[262_144] = b'\n';
        for content in [
            &b""[..],
            b"a",
            b"a\nb\n",
            b"a\r\nb\n\n",
            b"\n\r\n\r",
            &edges,
        ] {
            tree.write("file", content);
            let size = tree.root.ascii_size(&workers, &at("file")).await.unwrap();
            let mut converted = Vec::new();
            crate::proto::ascii::ToNetwork::default().convert(content, &mut converted);
            assert_eq!(size, converted.len() as u64);
        }
        let file = fs::File::create(tree.host("big")).unwrap();
        file.set_len(ASCII_SIZE_MAX + 1).unwrap();
        let size = tree.root.ascii_size(&workers, &at("big")).await;
        assert_eq!(size, Err(Failure::Unsupported));
    });
}

/// RFC 3659 §5: a restart point counts bytes of what is transferred. Whatever was sent up to it,
/// converted back, is the part of the file before the place that is found.
#[test]
fn restart_points_in_type_a_are_places_in_the_file() {
    run(|tree| async move {
        let workers = Workers::start("seek-test", 1, 4).unwrap();
        for content in [
            &b""[..],
            b"a",
            b"a\nbc\n",
            b"a\r\nb\n\n\r",
            b"\n\r\n\r",
            b"\r\r\n\n",
        ] {
            tree.write("file", content);
            let mut converted = Vec::new();
            crate::proto::ascii::ToNetwork::default().convert(content, &mut converted);
            let mut expected = Vec::new();
            for (at, byte) in content.iter().enumerate() {
                let is_end = *byte == b'\n' && (at == 0 || content[at - 1] != b'\r');
                // In the midst of a line end, all of it counts as sent.
                expected.extend(std::iter::repeat_n(at, if is_end { 2 } else { 1 }));
                if is_end {
                    let last = expected.len() - 1;
                    expected[last] = at + 1;
                }
            }
            expected.push(content.len());
            for (offset, place) in expected.iter().enumerate() {
                let found = tree
                    .root
                    .ascii_offset(&workers, &at("file"), offset as u64)
                    .await;
                assert_eq!(found, Ok(*place as u64), "{offset} in {content:?}");
            }
            let beyond = converted.len() as u64 + 1;
            let found = tree.root.ascii_offset(&workers, &at("file"), beyond).await;
            assert_eq!(found, Err(Failure::OffsetBeyondEnd), "{content:?}");
        }
        // Across the pieces in which a large file is read.
        tree.write("file", b"0123456\n".repeat(1_000_000));
        let found = tree
            .root
            .ascii_offset(&workers, &at("file"), 9 * 900_000 + 3)
            .await;
        assert_eq!(found, Ok(8 * 900_000 + 3));
    });
}
