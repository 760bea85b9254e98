//! What every verb takes and refuses, RFC by RFC.

use proptest::prelude::*;

use super::*;
use crate::proto::argument::{ByteRange, ListOptions};

fn check(cases: &[(&str, Command<'_>)]) {
    for (line, command) in cases {
        assert_eq!(parse(line.as_bytes()), Ok(*command), "{line:?}");
        assert_eq!(
            Verb::parse(split_word(line.as_bytes()).0),
            Some(command.verb()),
            "{line:?}"
        );
    }
}

fn check_refused(cases: &[(&str, u16)]) {
    for (line, code) in cases {
        let refused = parse(line.as_bytes()).map_err(|error| error.code().number());
        assert_eq!(refused, Err(*code), "{line:?}");
    }
}

#[test]
fn access_commands_of_rfc_959_section_4_1_1() {
    check(&[
        ("USER anonymous", Command::User(b"anonymous")),
        ("user Alice B", Command::User(b"Alice B")),
        ("PASS secret", Command::Pass(Secret(b"secret"))),
        ("PASS  two words ", Command::Pass(Secret(b" two words "))),
        // curl and ftplib send an empty password as it is.
        ("PASS ", Command::Pass(Secret(b""))),
        ("PASS", Command::Pass(Secret(b""))),
        ("PASS \u{1}", Command::Pass(Secret(b"\x01"))),
        ("ACCT x", Command::Acct(Secret(b"x"))),
        ("CWD /a b", Command::Cwd(b"/a b")),
        ("XCWD a", Command::Cwd(b"a")),
        ("CDUP", Command::Cdup),
        ("XCUP", Command::Cdup),
        ("CDUP ..", Command::Cdup),
        ("QUIT", Command::Quit),
        ("QUIT now", Command::Quit),
        ("REIN", Command::Rein),
        ("REIN  ", Command::Rein),
    ]);
    check_refused(&[
        ("USER", 501),
        ("USER ", 501),
        ("USER a\0b", 501),
        ("ACCT", 501),
        ("CWD", 501),
        ("REIN x", 501),
        ("SMNT /x", 502),
    ]);
}

#[test]
fn parameter_commands_of_rfc_959_section_4_1_2() {
    check(&[
        (
            "PORT 127,0,0,1,4,1",
            Command::Port("127.0.0.1:1025".parse().expect("an address")),
        ),
        ("PASV", Command::Pasv),
        ("PASV x", Command::Pasv),
        ("TYPE A", Command::Type(TypeCode::Ascii)),
        ("TYPE a n", Command::Type(TypeCode::Ascii)),
        ("TYPE I", Command::Type(TypeCode::Image)),
        ("TYPE L 8", Command::Type(TypeCode::Image)),
        ("STRU F", Command::Stru(StructureCode::File)),
        ("STRU f", Command::Stru(StructureCode::File)),
        ("MODE S", Command::Mode(ModeCode::Stream)),
        ("MODE s", Command::Mode(ModeCode::Stream)),
    ]);
    check_refused(&[
        ("PORT", 501),
        ("PORT 1,2,3,4,5", 501),
        ("PORT 1,2,3,4,5,256", 501),
        ("TYPE", 501),
        ("TYPE X", 501),
        ("TYPE AN", 501),
        // RFC 959 §5.4: 504 for what is known but not implemented.
        ("TYPE E", 504),
        ("TYPE A T", 504),
        ("TYPE A C", 504),
        ("TYPE L 7", 504),
        ("TYPE L", 504),
        ("STRU", 501),
        ("STRU X", 501),
        ("STRU FF", 501),
        ("STRU R", 504),
        ("STRU p", 504),
        ("MODE", 501),
        ("MODE X", 501),
        ("MODE B", 504),
        ("MODE c", 504),
    ]);
}

#[test]
fn service_commands_of_rfc_959_section_4_1_3() {
    let plain = ListArgument::default();
    let named = ListArgument {
        name: Some(b"a b"),
        ..plain
    };
    let long = ListOptions {
        all: true,
        long: true,
        ..ListOptions::default()
    };
    check(&[
        ("RETR a", Command::Retr(b"a")),
        ("RETR  a ", Command::Retr(b" a ")),
        ("RETR a\"b", Command::Retr(b"a\"b")),
        ("STOR grün", Command::Stor("grün".as_bytes())),
        ("STOU", Command::Stou(None)),
        ("STOU ", Command::Stou(None)),
        // RFC 1123 §4.1.2.9 has no argument; RFC 959 §5.3.1 neither, but clients send one.
        ("STOU a", Command::Stou(Some(b"a"))),
        ("APPE a", Command::Appe(b"a")),
        ("ALLO 10", Command::Allo(10)),
        ("ALLO 10 R 5", Command::Allo(10)),
        ("RNFR a", Command::Rnfr(b"a")),
        ("RNTO b", Command::Rnto(b"b")),
        ("ABOR", Command::Abor),
        ("abor junk", Command::Abor),
        ("DELE a", Command::Dele(b"a")),
        ("RMD a", Command::Rmd(b"a")),
        ("XRMD a", Command::Rmd(b"a")),
        ("MKD a", Command::Mkd(b"a")),
        ("XMKD a", Command::Mkd(b"a")),
        ("PWD", Command::Pwd),
        ("XPWD", Command::Pwd),
        ("LIST", Command::List(plain)),
        ("LIST a b", Command::List(named)),
        (
            "LIST -la",
            Command::List(ListArgument {
                options: long,
                ..plain
            }),
        ),
        ("NLST a b", Command::Nlst(named)),
        ("SYST", Command::Syst),
        ("STAT", Command::Stat(None)),
        ("STAT a b", Command::Stat(Some(named))),
        (
            "STAT -la",
            Command::Stat(Some(ListArgument {
                options: long,
                ..plain
            })),
        ),
        ("HELP", Command::Help(None)),
        ("HELP RETR", Command::Help(Some(b"RETR"))),
        ("NOOP", Command::Noop),
        ("NOOP keep alive", Command::Noop),
        ("noop", Command::Noop),
        ("nOoP", Command::Noop),
    ]);
    check_refused(&[
        ("RETR", 501),
        ("RETR ", 501),
        ("RETR a\0b", 501),
        ("RETR a\rb", 501),
        ("RETR a\u{1b}b", 501),
        ("RETR a\u{7f}b", 501),
        ("DELE keep\0x", 501),
        ("STOR", 501),
        ("APPE", 501),
        ("ALLO", 501),
        ("ALLO x", 501),
        ("ALLO 10 X 5", 501),
        ("ALLO 10 R", 501),
        ("RNFR", 501),
        ("RNTO", 501),
        ("DELE", 501),
        ("RMD", 501),
        ("MKD", 501),
    ]);
    assert_eq!(
        parse(b"RETR caf\xe9\xff"),
        Ok(Command::Retr(b"caf\xe9\xff"))
    );
}

#[test]
fn features_and_options_of_rfc_2389() {
    check(&[
        ("FEAT", Command::Feat),
        ("FEAT x", Command::Feat),
        ("OPTS UTF8 ON", Command::Opts(OptsCommand::Utf8)),
    ]);
    check_refused(&[("OPTS", 501), ("OPTS RETR x", 501)]);
}

#[test]
fn extended_addresses_of_rfc_2428() {
    let address = "[::1]:2000".parse().expect("an address");
    check(&[
        (
            "EPRT |2|::1|2000|",
            Command::Eprt(NetAddress::Known(address)),
        ),
        ("EPRT |9|x|1|", Command::Eprt(NetAddress::UnknownProtocol)),
        ("EPSV", Command::Epsv(EpsvArgument::Any)),
        ("EPSV ", Command::Epsv(EpsvArgument::Any)),
        ("EPSV 1", Command::Epsv(EpsvArgument::Family(1))),
        ("epsv all", Command::Epsv(EpsvArgument::All)),
    ]);
    check_refused(&[("EPRT", 501), ("EPRT |1|::1|1|", 501), ("EPSV x", 501)]);
}

#[test]
fn language_of_rfc_2640_section_4_1_and_host_of_rfc_7151_section_3() {
    check(&[
        ("LANG", Command::Lang(None)),
        ("LANG en-GB", Command::Lang(Some(b"en-GB"))),
        ("HOST ftp.example.com", Command::Host(b"ftp.example.com")),
        ("HOST [2001:db8::1]", Command::Host(b"[2001:db8::1]")),
    ]);
    check_refused(&[
        ("LANG en_GB", 501),
        ("LANG -", 501),
        ("LANG overlonglanguage", 501),
        ("HOST", 501),
        ("HOST a b", 501),
        ("HOST grün.example", 501),
    ]);
    let long = format!("HOST {}", "a".repeat(HOST_LENGTH_MAX + 1));
    check_refused(&[(&long, 501)]);
}

#[test]
fn extensions_of_rfc_3659() {
    check(&[
        ("REST 0", Command::Rest(0)),
        ("REST 18446744073709551615", Command::Rest(u64::MAX)),
        ("SIZE a b", Command::Size(b"a b")),
        ("MDTM a", Command::Mdtm(b"a")),
        ("MDTM 20260101000000 a", Command::Mdtm(b"20260101000000 a")),
        ("MLST", Command::Mlst(None)),
        ("MLST a", Command::Mlst(Some(b"a"))),
        ("MLSD", Command::Mlsd(None)),
        // RFC 3659 §7: no options.
        ("MLSD -a", Command::Mlsd(Some(b"-a"))),
    ]);
    check_refused(&[
        // RFC 3659 §5.3: digits alone.
        ("REST", 501),
        ("REST x", 501),
        ("REST -1", 501),
        ("REST 1 ", 501),
        ("REST 18446744073709551616", 501),
        ("SIZE", 501),
        ("MDTM", 501),
    ]);
}

#[test]
fn times_and_facts_of_draft_somers_ftp_mfxx() {
    let time = Timestamp::parse(b"20260101000000").expect("a time");
    let facts = FactList::parse(b"Modify=20260101000000;").expect("a fact");
    check(&[
        ("MFMT 20260101000000 a b", Command::Mfmt(time, b"a b")),
        ("MFMT 20260101000000.5 a", Command::Mfmt(time, b"a")),
        ("MFCT 20260101000000 a", Command::Mfct(time, b"a")),
        (
            "MFF Modify=20260101000000; a b",
            Command::Mff(facts, b"a b"),
        ),
    ]);
    check_refused(&[
        ("MFMT", 501),
        ("MFMT 20260101000000", 501),
        ("MFMT 20260101000000 ", 501),
        ("MFMT 20261301000000 a", 501),
        ("MFMT a", 501),
        ("MFF Modify a", 501),
        ("MFF Modify=1;", 501),
    ]);
}

#[test]
fn digests() {
    let of = |algorithm, name| {
        let range = ByteRange::default();
        Command::Checksum(ChecksumArgument {
            algorithm,
            name,
            range,
        })
    };
    check(&[
        ("HASH a b", Command::Hash(b"a b")),
        ("XCRC a", of(HashAlgorithm::Crc32, b"a")),
        ("XMD5 \"a b\"", of(HashAlgorithm::Md5, b"a b")),
        ("XSHA a", of(HashAlgorithm::Sha1, b"a")),
        ("XSHA1 a", of(HashAlgorithm::Sha1, b"a")),
        ("XSHA256 a", of(HashAlgorithm::Sha256, b"a")),
        ("XSHA512 a", of(HashAlgorithm::Sha512, b"a")),
    ]);
    check_refused(&[("HASH", 501), ("XCRC", 501), ("XMD5 \"a", 501)]);
}

#[test]
fn what_clients_say_of_themselves() {
    check(&[
        ("AVBL", Command::Avbl(None)),
        ("AVBL /a", Command::Avbl(Some(b"/a"))),
        ("CLNT lftp 4.9", Command::Clnt(b"lftp 4.9")),
        (
            "CSID Name=x; Version=1;",
            Command::Csid(b"Name=x; Version=1;"),
        ),
    ]);
    check_refused(&[("CLNT", 501), ("CSID", 501)]);
}

#[test]
fn protection_of_rfc_2228_and_4217() {
    check(&[
        ("AUTH TLS", Command::Auth(b"TLS")),
        ("auth tls-c", Command::Auth(b"tls-c")),
        ("PBSZ 0", Command::Pbsz(0)),
        ("PBSZ 16384", Command::Pbsz(16_384)),
        ("PROT P", Command::Prot(ProtectionCode::Private)),
        ("PROT c", Command::Prot(ProtectionCode::Clear)),
        ("CCC", Command::Ccc),
        ("PROT S", Command::Prot(ProtectionCode::Safe)),
        ("PROT E", Command::Prot(ProtectionCode::Confidential)),
    ]);
    check_refused(&[
        ("AUTH", 501),
        ("PBSZ", 501),
        ("PBSZ x", 501),
        ("PROT", 501),
        ("CCC x", 501),
        ("PROT X", 504),
        ("PROT PP", 504),
    ]);
}

#[test]
fn verbs_that_are_not_offered_get_502() {
    for &verb in Verb::ALL {
        let refused = parse(verb.name().as_bytes()).is_err_and(|error| error == NOT_OFFERED);
        assert_eq!(refused, !verb.is_offered(), "{}", verb.name());
    }
    check_refused(&[
        ("ADAT x", 502),
        ("MIC x", 502),
        ("CONF x", 502),
        ("ENC x", 502),
    ]);
}

#[test]
fn what_is_no_command_gets_500() {
    check_refused(&[
        ("", 500),
        (" ", 500),
        (" NOOP", 500),
        ("\tNOOP", 500),
        ("NOOP\t", 500),
        ("NOOP\0", 500),
        ("GET / HTTP/1.1", 500),
        ("Host: example.com", 500),
        ("RETRIEVE a", 500),
        ("\u{16}\u{3}\u{1}", 500),
        ("ü", 500),
    ]);
}

#[test]
fn a_refusal_becomes_a_reply() {
    let mut out = Vec::new();
    Reply::from(UNKNOWN_COMMAND).encode(&mut out);
    assert_eq!(out, b"500 Unknown command.\r\n");
}

#[test]
fn secrets_cannot_be_printed() {
    for line in ["PASS hunter2", "ACCT hunter2"] {
        let command = parse(line.as_bytes()).expect(line);
        assert!(!format!("{command:?}").contains("hunter2"));
        // Nor as the numbers of its bytes.
        assert!(!format!("{command:?}").contains("104"));
    }
    assert_eq!(Secret(b"hunter2").expose(), b"hunter2");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = parse(&line) {
            prop_assert!((500..505).contains(&error.code().number()));
        }
    }

    #[test]
    fn no_argument_makes_it_panic_or_carries_a_control_byte(
        index in 0..Verb::ALL.len(),
        argument in prop::collection::vec(
            prop_oneof![3 => 32u8..127, 1 => any::<u8>(), 1 => Just(b' ')], 0..80),
    ) {
        let verb = Verb::ALL[index];
        let line = [verb.name().as_bytes(), b" ", &argument].concat();
        match parse(&line) {
            Ok(command) => {
                prop_assert_eq!(command.verb(), verb);
                let secret = matches!(verb, Verb::Pass | Verb::Acct);
                prop_assert!(secret || !argument.iter().any(u8::is_ascii_control));
            }
            Err(error) => prop_assert!(error.code() != Code::SYNTAX_ERROR || verb == Verb::Site),
        }
    }
}
