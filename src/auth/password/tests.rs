//! Hashes that other programs made, and what is refused.

use super::*;

#[test]
fn a_hash_matches_its_password_only() {
    let hash = StoredHash::create(b"correct horse").expect("a fine password");
    assert!(
        hash.as_text()
            .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
    );
    let read = StoredHash::parse(hash.as_text()).expect("what was written is read");
    assert_eq!(read, hash);
    assert!(read.matches(b"correct horse"));
    assert!(!read.matches(b"correct horse "));
    assert!(!read.matches(b""));
    assert!(!read.matches(&[b'a'; PASSWORD_LENGTH_MAX + 1]));
}

#[test]
fn two_hashes_of_a_password_differ() {
    assert_ne!(StoredHash::create(b"x"), StoredHash::create(b"x"));
}

#[test]
fn the_hash_of_nobody_costs_what_a_new_hash_costs() {
    let nobody = StoredHash::parse(HASH_OF_NOBODY).expect("a valid hash");
    let phc = PasswordHash::new(nobody.as_text()).expect("a PHC string");
    let params = Params::try_from(&phc).expect("valid parameters");
    assert_eq!(
        (
            params.m_cost(),
            params.t_cost(),
            params.p_cost(),
            phc.hash.map(|h| h.len())
        ),
        (
            PARAMS.m_cost(),
            PARAMS.t_cost(),
            PARAMS.p_cost(),
            PARAMS.output_len()
        ),
    );
    assert!(!nobody.matches(b"nobody"));
}

#[test]
fn foreign_hashes_are_bounded() {
    let tail = "$M1hF0InBU1MpC8EhbseM/g$rynKUQ6TEyOAwlYNfnM+ZeitrbMw6d/+TBcl0H97/7A";
    for (head, error) in [
        ("$argon2id$v=19$m=65536,t=3,p=4", None),
        ("$argon2i$v=19$m=4096,t=3,p=1", None),
        ("$argon2id$v=19$m=262144,t=32,p=16", None),
        // As Pure-FTPd 1.0.50 makes them on a fast machine.
        ("$argon2id$v=19$m=8192,t=1023,p=1", None),
        (
            "$argon2id$v=19$m=262145,t=1,p=1",
            Some(PasswordError::TooCostly),
        ),
        (
            "$argon2id$v=19$m=4294967295,t=1,p=1",
            Some(PasswordError::TooCostly),
        ),
        (
            "$argon2id$v=19$m=262144,t=33,p=1",
            Some(PasswordError::TooCostly),
        ),
        (
            "$argon2id$v=19$m=8,t=4294967295,p=1",
            Some(PasswordError::TooCostly),
        ),
        (
            "$argon2id$v=19$m=19456,t=1,p=17",
            Some(PasswordError::TooCostly),
        ),
        ("$argon2id$v=19$m=1,t=1,p=1", Some(PasswordError::NotAHash)),
        ("$scrypt$ln=16,r=8,p=1", Some(PasswordError::NotAHash)),
    ] {
        assert_eq!(
            StoredHash::parse(&format!("{head}{tail}")).err(),
            error,
            "{head}"
        );
    }
    for text in [
        "",
        "hunter2",
        "$6$salt$hash",
        "$argon2id$v=19$m=19456,t=2,p=1",
        "$$$$",
    ] {
        assert_eq!(
            StoredHash::parse(text),
            Err(PasswordError::NotAHash),
            "{text}"
        );
    }
}

#[test]
fn passwords_that_ftp_cannot_carry_are_refused() {
    for (password, error) in [
        (&b""[..], PasswordError::Empty),
        (b"a\r\n", PasswordError::Control),
        (b"a\0b", PasswordError::Control),
        (&[b'a'; 251], PasswordError::TooLong),
    ] {
        assert_eq!(StoredHash::create(password), Err(error));
    }
}

#[test]
fn a_hash_is_not_shown() {
    let hash = StoredHash::parse(HASH_OF_NOBODY).expect("a valid hash");
    assert_eq!(format!("{hash:?}"), "StoredHash(…)");
}

/// What the tables below call the password of 102 bytes that is not ASCII.
const LONG: &str = "LONG";

fn password(name: &str) -> Vec<u8> {
    match name {
        LONG => [&[b'a'; 100][..], "é".as_bytes()].concat(),
        name => name.as_bytes().to_vec(),
    }
}

#[test]
fn hashes_that_other_programs_made_match_their_passwords_only() {
    for (name, text) in [
        // mkpasswd 5.5.17 (libxcrypt 4.4.33).
        (
            HORSE,
            "$2b$05$rzFvNoizp/g/vSwl0yWK6..1eNeD4SS4ISEyLy42HXega8EPfD/5K",
        ),
        (
            HORSE,
            "$2a$05$fJdZOGo5x96cRifwESsQY.1FvEEvp1bW14clDF7Jo1mcVzrT4E8YG",
        ),
        (
            "x",
            "$2b$05$eW0Jbs5a9jDIq4ms0KzF/eKxMRUmEb4AAV1nOFUldwE1KAmqwD5bu",
        ),
        (
            HORSE,
            "$y$j9T$KwKvLSdUiYezLTgYEIRJ..$8oUv9wRWUclhLF1qC3Kkpcu3vtr6THYbcWfwaWX9sw1",
        ),
        (
            HORSE,
            "$y$j75$iEi/8UXmvZ0BQ3CjaBLPd/$c6mmC7Zw3QiB3ZAO7gwPAH3QDzr/n0PAy4SaDgV5nz6",
        ),
        (
            "x",
            "$y$j9T$3RGZWMqU.G5huLgglzJ2.1$9GYdH9hiSQa3Wm/7VOq9Cyy6ABOK9xGdsCdFBU4pnZC",
        ),
        (
            LONG,
            "$y$j9T$kJgKdOOUV2vm9QWd8Y4zg.$qST/IHg4xJzemji0qF/pdf1Sk8ItdFK/K9uHTK0sGwD",
        ),
        (
            HORSE,
            "$6$zM4Ck9ihmayBaCel$T6B.szcEnGIAGS9VhBOIaJCdm7wOuPmKdq5qHHtE.xkECGhMOqM3IDI1agmt3ccp0ti\
             //sZDz7mnJottGkAWN1",
        ),
        (
            HORSE,
            "$6$rounds=10000$uX8abqxHh2bCe7hi$t8LXp2wxAy4dHF6zZqundAD4fXzED4HCv4fUWshH9J8oU18FagIhBJ\
             Lw/o.OyNz7HmnnqUkGDWkj1dkoaI11Z0",
        ),
        (
            HORSE,
            "$5$f.HDviMBb7TEWQDT$JYAhRErfSHzURv4KFesfiGBpF5X1i6Kt2mOOZgv4Ow6",
        ),
        ("x", "$1$bhlyA8Q6$BVgMTeu.8IBskchQ2V0zj."),
        // htpasswd 2.4.67, the former as -B, the latter by default.
        (
            HORSE,
            "$2y$05$Uki7/Ibn3LKdJmlD4ucYwurt1FI.iNi0e5rG7v0IsGMfz8zyAbr9.",
        ),
        (HORSE, "$apr1$IAiKwzRn$rP0FX6fIEzAaWeIH8UOb01"),
        // openssl passwd 3.0.
        (HORSE, "$apr1$abc$wQiFhKV487RKJ400idf4c/"),
        (LONG, "$apr1$xyz$bqqgJnL2uy4.bsLRTu/My1"),
        (LONG, "$1$abcdefgh$6Nj9uoFsanW0gZXuu/W.n1"),
        (
            HORSE,
            "$5$a.b/c$pBDEVpMB.HzwxP5Uv44.9gcuiC1dcJWKAitBOTlHhi6",
        ),
        (
            HORSE,
            "$6$a.b/c$QjA15H7n1Op5ye3HWeFoKBL26zisk2ftwa75VxBDBVYr3QeDcQHasGY9GJ17Zn8oRvZMfZTfGGPM51\
             .QOUlBZ0",
        ),
        // crypt of Python 3.11.
        (HORSE, "$1$salt$uXdHrfCd.CnHQasvSgrAO0"),
        (LONG, "$1$salt$zBYIqanhox6resTYsijd.0"),
        (
            HORSE,
            "$5$rounds=1000$saltstring$95Bg/RfV2QriLpMdLPHK9el0Ighm6E3CBqMKzZKgCa2",
        ),
        (
            LONG,
            "$5$rounds=1000$saltstring$BRzpgb.81IWvw109R3gaah0BvSWFhOGvMCWQtiS4S70",
        ),
        (
            LONG,
            "$6$saltstringsaltst$f30hnG6bhG6nqSHNplR3Rn1z07Gz5g74PmhHkOYu8uDzsXJBpODBCzxk4GH2oV/xr9i\
             xf5EabY9E44aTMlz0a/",
        ),
        (
            HORSE,
            "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        ),
        (
            LONG,
            "$2y$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe",
        ),
        (
            HORSE,
            "$2a$06$abcdefghijklmnopqrstuud/5IuQmqhVO0kfNEbHJM.fJkPiliBzC",
        ),
        // ftpasswd of ProFTPD 1.3.8.
        (HORSE, "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r."),
        (
            HORSE,
            "$5$fBMPEOmJNxPqN5qt$qKeGkkjY.HM1adYCGkiscsU.htqkZgmRf3BAPVbdy7B",
        ),
    ] {
        let hash = StoredHash::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let right = password(name);
        assert!(hash.matches(&right), "{text}");
        assert!(!hash.matches(b""), "{text}");
        assert!(!hash.matches(b"wrong horse"), "{text}");
        assert!(!hash.matches(&[&right[..], b"\0"].concat()), "{text}");
        assert!(
            !hash.matches(&right[..right.len() - 1]) || text.starts_with("$2"),
            "{text}"
        );
        assert_eq!(hash.as_text(), text);
        assert_eq!(format!("{hash:?}"), "StoredHash(…)");
    }
}

#[test]
fn hashes_of_other_systems_are_whole_and_bounded() {
    let (md5, sha256, sha512) = ("x".repeat(22), "x".repeat(43), "x".repeat(86));
    let bcrypt = "rzFvNoizp/g/vSwl0yWK6..1eNeD4SS4ISEyLy42HXega8EPfD/5K";
    for (text, expected) in [
        (format!("$2b$15${bcrypt}"), None),
        (format!("$2b$16${bcrypt}"), Some(PasswordError::TooCostly)),
        (format!("$2b$31${bcrypt}"), Some(PasswordError::TooCostly)),
        (format!("$2b$03${bcrypt}"), Some(PasswordError::NotAHash)),
        (format!("$2x$10${bcrypt}"), Some(PasswordError::NotAHash)),
        (
            format!("$2b$10${}", &bcrypt[1..]),
            Some(PasswordError::NotAHash),
        ),
        (format!("$5$rounds=2000000$s${sha256}"), None),
        (
            format!("$5$rounds=2000001$s${sha256}"),
            Some(PasswordError::TooCostly),
        ),
        (
            format!("$6$rounds=999999999$s${sha512}"),
            Some(PasswordError::TooCostly),
        ),
        (
            format!("$6$rounds=999$s${sha512}"),
            Some(PasswordError::NotAHash),
        ),
        (
            format!("$6$rounds=99999999999$s${sha512}"),
            Some(PasswordError::NotAHash),
        ),
        (format!("$6$s${sha256}"), Some(PasswordError::NotAHash)),
        (format!("$5$s${sha512}"), Some(PasswordError::NotAHash)),
        ("$5$s$".to_owned(), Some(PasswordError::NotAHash)),
        (format!("$6$s${sha512}$"), Some(PasswordError::NotAHash)),
        // Cost 9 of crypt(5), then 10 and 11.
        (format!("$y$jDT$salt${sha256}"), None),
        (
            format!("$y$jET$salt${sha256}"),
            Some(PasswordError::TooCostly),
        ),
        (
            format!("$y$jFT$salt${sha256}"),
            Some(PasswordError::TooCostly),
        ),
        // Two lanes; 2 further passes.
        (
            format!("$y$j9T.$.$salt${sha256}"),
            Some(PasswordError::NotAHash),
        ),
        (
            format!("$y$j9T/.$salt${sha256}"),
            Some(PasswordError::NotAHash),
        ),
        ("$y$j9T$salt$".to_owned(), Some(PasswordError::NotAHash)),
        (format!("$y$$salt${sha256}"), Some(PasswordError::NotAHash)),
        (format!("$1$salt${md5}"), None),
        (format!("$1$saltsalt1${md5}"), Some(PasswordError::NotAHash)),
        (format!("$apr1$salt${md5}x"), Some(PasswordError::NotAHash)),
        (
            "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=".to_owned(),
            Some(PasswordError::NotAHash),
        ),
        ("rEK1ecacw.7.c".to_owned(), Some(PasswordError::NotAHash)),
        ("$y$é$salt$".to_owned(), Some(PasswordError::NotAHash)),
        (format!("$1$é${md5}"), Some(PasswordError::NotAHash)),
        ("!".to_owned(), Some(PasswordError::NotAHash)),
    ] {
        assert_eq!(StoredHash::parse(&text).err(), expected, "{text}");
    }
}

#[test]
fn hashes_cost_the_same_when_their_parameters_are_the_same() {
    for (text, cost) in [
        (HASH_OF_NOBODY, "$argon2id$v=19$m=19456,t=2,p=1"),
        (
            "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
            "$2y$04$",
        ),
        ("$1$salt$uXdHrfCd.CnHQasvSgrAO0", "$1"),
        (
            "$5$rounds=1000$saltstring$95Bg/RfV2QriLpMdLPHK9el0Ighm6E3CBqMKzZKgCa2",
            "$5$rounds=1000",
        ),
        ("$5$a.b/c$pBDEVpMB.HzwxP5Uv44.9gcuiC1dcJWKAitBOTlHhi6", "$5"),
        (
            "$y$j75$iEi/8UXmvZ0BQ3CjaBLPd/$c6mmC7Zw3QiB3ZAO7gwPAH3QDzr/n0PAy4SaDgV5nz6",
            "$y$j75",
        ),
    ] {
        assert_eq!(StoredHash::parse(text).expect("a hash").cost(), cost);
    }
}

const HORSE: &str = "correct horse";
