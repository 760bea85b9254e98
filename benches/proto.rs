//! The pure part of the server: what one command, one reply, one line of a listing and one KiB of
//! TYPE A cost, without any I/O.
//!
//! Each group names the claim that it guards. Run with `cargo bench --bench proto`; a number means
//! something only together with the CPU that it was measured on.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use std::hint::black_box;

use criterion::{
    BatchSize, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use ringftpd::proto::argument::HashAlgorithm;
use ringftpd::proto::ascii::{ToLocal, ToNetwork};
use ringftpd::proto::command;
use ringftpd::proto::feature;
use ringftpd::proto::glob;
use ringftpd::proto::line::LineDecoder;
use ringftpd::proto::listing::{
    Entry, FactSet, Kind, Role, write_facts_line, write_list_line, write_name_line,
};
use ringftpd::proto::path::VirtualPath;
use ringftpd::proto::reply::{Code, Reply, quoted};
use ringftpd::proto::rights::{Right, RightSet, Rights, Rule};

/// Claim: a command is cut from the stream and parsed in less than 150 ns, a fraction of what the
/// system calls around it cost; its line is not copied.
fn parse_command(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse command");
    for (name, line) in [
        ("NOOP", &b"NOOP\r\n"[..]),
        ("RETR", b"RETR some/directory/and a file.tar.gz\r\n"),
        ("EPRT", b"EPRT |2|2001:db8::1:2:3|50123|\r\n"),
        ("PORT", b"PORT 192,168,100,200,195,203\r\n"),
        ("MFMT", b"MFMT 20260504030201 some/file\r\n"),
        ("LIST", b"LIST -la some/directory\r\n"),
        ("unknown", b"XYZZY something\r\n"),
    ] {
        group.bench_function(name, |b| {
            let mut decoder = LineDecoder::new(LINE_LENGTH_MAX);
            b.iter(|| {
                let mut input = black_box(line);
                let line = decoder.next_line(&mut input);
                black_box(command::parse(line.expect("a line").expect("not too long"))).is_ok()
            });
        });
    }
    // As it comes when a client types, or a network cuts it: the partial line has to be kept.
    group.bench_function("RETR in two packets", |b| {
        let mut decoder = LineDecoder::new(LINE_LENGTH_MAX);
        b.iter(|| {
            let mut input = black_box(&b"RETR some/dire"[..]);
            assert!(decoder.next_line(&mut input).is_none());
            let mut input = black_box(&b"ctory/and a file.tar.gz\r\n"[..]);
            let line = decoder.next_line(&mut input);
            black_box(command::parse(line.expect("a line").expect("not too long"))).is_ok()
        });
    });
    group.finish();
}

/// Claim: a reply of one line is written in less than 100 ns into a buffer that is there already, so
/// that pipelined commands can share one send.
fn encode_reply(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode reply");
    let replies = [
        ("fixed", Reply::new(Code::COMMAND_OK, "Command okay.")),
        (
            "FEAT",
            feature::features(FactSet::default(), HashAlgorithm::Sha256, false),
        ),
    ];
    for (name, reply) in &replies {
        group.bench_function(*name, |b| {
            let mut out = Vec::with_capacity(4096);
            b.iter(|| {
                out.clear();
                black_box(reply).encode(&mut out);
                black_box(out.len())
            });
        });
    }
    // With the making of the reply: the one that PWD gets.
    group.bench_function("PWD", |b| {
        let mut out = Vec::with_capacity(4096);
        b.iter(|| {
            out.clear();
            let mut text = quoted(black_box(b"/home/of/the \"user\""));
            text.extend_from_slice(b" is the current directory.");
            Reply::text(Code::PATHNAME, text).encode(&mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

/// Claim: of the 1.8 µs that a line of LIST or MLSD may cost (100 000 in 180 ms), formatting takes
/// less than a tenth; of the 340 ns of NLST, less than a twentieth. Nothing is allocated.
fn listing_line(c: &mut Criterion) {
    let mut group = c.benchmark_group("listing line");
    group.throughput(Throughput::Elements(1));
    let facts = FactSet::default();
    let mut out = Vec::with_capacity(4096);
    line(&mut group, "LIST", |entry| {
        write_list_line(&mut out, entry, NOW, false);
        black_box(&out);
        out.clear();
    });
    line(&mut group, "MLSD", |entry| {
        write_facts_line(&mut out, entry, facts, Role::Listed, RightSet::READ_WRITE);
        black_box(&out);
        out.clear();
    });
    line(&mut group, "NLST", |entry| {
        write_name_line(&mut out, b"", entry.name, None);
        black_box(&out);
        out.clear();
    });
    group.finish();
}

fn line(
    group: &mut criterion::BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut write: impl FnMut(&Entry<'_>),
) {
    let entry = Entry {
        name: b"a file with a name of usual length.tar.gz",
        kind: Kind::File,
        mode: 0o644,
        links: 1,
        uid: 1000,
        gid: 1000,
        size: 123_456_789,
        modified: NOW - 86_400,
        created: Some(NOW - 864_000),
        target: None,
        unique: (0xfd01, 1_234_567),
    };
    group.bench_function(name, |b| b.iter(|| write(black_box(&entry))));
}

/// Claim: the path of a command is made with one allocation, in less than 200 ns.
fn path_join(c: &mut Criterion) {
    let mut group = c.benchmark_group("path join");
    let here = VirtualPath::root()
        .join(b"/pub/linux/distributions")
        .expect("a path");
    for (name, argument) in [
        ("name", &b"image.iso"[..]),
        ("relative", b"../mirrors/./of//some/where/image.iso"),
        ("absolute", b"/pub/linux/kernel/v7.x/patch.xz"),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || argument,
                |argument| black_box(&here).join(black_box(argument)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Claim: TYPE A is converted faster than 1 GiB/s for text of usual lines, so that the network and
/// the disk remain what limits a transfer; bytes without line ends go at the speed of a copy.
fn ascii(c: &mut Criterion) {
    let mut group = c.benchmark_group("ascii");
    let line = b"A line of a text, as long as lines of texts and programs mostly are.";
    for (name, line) in [
        ("text", &line[..]),
        ("short lines", b"1"),
        ("no lines", &[0; CHUNK_BYTES]),
    ] {
        let local = cut(&[line, &b"\n"[..]].concat());
        let network = cut(&[line, &b"\r\n"[..]].concat());
        let mut out = Vec::with_capacity(2 * CHUNK_BYTES);
        group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
        group.bench_function(format!("to network, {name}"), |b| {
            let mut convert = ToNetwork::default();
            b.iter(|| {
                out.clear();
                convert.convert(black_box(&local), &mut out);
                black_box(out.len())
            });
        });
        group.bench_function(format!("to local, {name}"), |b| {
            let mut convert = ToLocal::default();
            b.iter(|| {
                out.clear();
                convert.convert(black_box(&network), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

/// One chunk of a transfer, made of repetitions.
fn cut(line: &[u8]) -> Vec<u8> {
    line.iter().copied().cycle().take(CHUNK_BYTES).collect()
}

/// Claim: a pattern costs a listing less than 300 ns for each name, and one made to blow up costs no
/// more than its length times that of the name.
fn glob_match(c: &mut Criterion) {
    let mut group = c.benchmark_group("glob");
    let name = b"a file with a name of usual length.tar.gz";
    for (title, pattern) in [
        ("suffix", &b"*.tar.gz"[..]),
        ("class", b"[a-z]*[0-9]*"),
        ("hostile", b"*a*a*e*e*e*e*e*e*e*x"),
    ] {
        group.bench_function(title, |b| {
            b.iter(|| glob::matches(black_box(pattern), black_box(name)));
        });
    }
    group.finish();
}

/// 2026-05-04 03:02:01.
const NOW: i64 = 1_777_863_721;

const LINE_LENGTH_MAX: usize = 4096;

/// Small enough to stay in the cache of a core, so that memory is not what is measured.
const CHUNK_BYTES: usize = 128 * 1024;

/// Claim: rights cost a command less than 50 ns without rules, and less than 100 ns for each rule.
fn check_rights(c: &mut Criterion) {
    let mut group = c.benchmark_group("rights");
    let path = VirtualPath::root().join(b"some/directory/file.tar.gz");
    let path = path.expect("a path");
    for rules in [0, 1, 10, 100] {
        let rule = |number| Rule::parse(&format!("/d{number}/** read-only")).expect("a rule");
        let rights = Rights {
            everywhere: RightSet::READ_WRITE,
            rules: (0..rules).map(rule).collect(),
            hidden: Vec::new(),
        };
        group.bench_function(format!("{rules} rules"), |b| {
            b.iter(|| rights.check(black_box(&path), Right::Read));
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    parse_command,
    encode_reply,
    listing_line,
    path_join,
    ascii,
    glob_match,
    check_rights
);
criterion_main!(benches);
