//! What a program or a web service of the operator's is asked, and what it may answer: JSON.

use serde::{Deserialize, Serialize};

use super::{Found, Login};
use crate::auth::Reason;
use crate::config::SourceKind;

/// The question, as one JSON object.
#[derive(Debug, Serialize)]
struct Question<'q> {
    user: &'q str,
    /// The password may be in another encoding: what is not UTF-8 is replaced, and matches nothing.
    password: std::borrow::Cow<'q, str>,
    client: String,
    /// The name of a virtual host's section.
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'q str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    result: Verdict,
    /// The keys of a user's section of the users file.
    #[serde(default)]
    user: toml::Table,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Accepted,
    Refused,
    Unknown,
    /// The user's key `password` has a hash, which the server is to verify.
    Hash,
}

/// The text of the question about a login.
pub(super) fn question(login: &Login<'_>) -> Vec<u8> {
    let question = Question {
        user: login.name.as_str(),
        password: String::from_utf8_lossy(login.password),
        client: login.client.to_string(),
        host: login.host,
    };
    // Strings alone: that cannot fail.
    serde_json::to_vec(&question).unwrap_or_default()
}

/// What an answer means.
pub(super) fn found(answer: &[u8], login: &Login<'_>, kind: SourceKind) -> Result<Found, String> {
    let origin = kind.name();
    // The place but not the text, which may hold secrets.
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{origin}: the answer is not as it should be at line {line}, column {column}")
    })?;
    let described = || login.users.describe(login.name, &answer.user, origin);
    match answer.result {
        Verdict::Unknown => Ok(Found::Unknown),
        Verdict::Refused => Ok(Found::Refused(Reason::WrongPassword)),
        Verdict::Accepted => Ok(Found::Verified(Box::new(described()?.member))),
        Verdict::Hash => described()?
            .into_user()
            .map(|user| Found::User(Box::new(user)))
            .ok_or_else(|| format!("{origin}: user {} has no password hash", login.name)),
    }
}

/// A user's description is far shorter.
pub(super) const ANSWER_LENGTH_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    use super::*;
    use crate::auth::{UserList, UserName};

    fn ask(answer: &str) -> Result<Found, String> {
        let name = UserName::parse(b"alice").expect("valid");
        let users = "[default]\nroot = \"/srv/{user}\"\naccess = \"read-write\"\n";
        let users = UserList::parse(users, "users.toml").expect("valid");
        let login = Login {
            name: &name,
            password: b"pass\"\xff",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: "shop",
            users: &users,
        };
        let question = String::from_utf8(question(&login)).expect("UTF-8");
        let expected =
            r#"{"user":"alice","password":"pass\"�","client":"127.0.0.1","host":"shop"}"#;
        assert_eq!(question, expected);
        found(answer.as_bytes(), &login, SourceKind::Program)
    }

    #[test]
    fn an_answer_has_the_keys_of_the_users_file() {
        let answer = r#"{"result": "accepted", "user": {"quota": "1 GiB", "deny": ["delete"]}}"#;
        let Ok(Found::Verified(member)) = ask(answer) else {
            panic!("{:?}", ask(answer));
        };
        assert_eq!(member.identity.root, Path::new("/srv/alice"));
        assert_eq!(member.identity.quota.bytes, Some(1 << 30));
        assert_eq!(ask(r#"{"result": "unknown"}"#), Ok(Found::Unknown));
        let refused = Found::Refused(Reason::WrongPassword);
        assert_eq!(ask(r#"{"result": "refused"}"#), Ok(refused));
        let hash = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
        let answer = format!(r#"{{"result": "hash", "user": {{"password": "{hash}"}}}}"#);
        let Ok(Found::User(user)) = ask(&answer) else {
            panic!("{:?}", ask(&answer));
        };
        assert_eq!(user.password.as_text(), hash);
    }

    #[test]
    fn a_wrong_answer_is_told_without_its_text() {
        for (answer, part) in [
            ("", "line 1"),
            ("hunter2", "line 1"),
            (r#"{"result": "accepted", "more": "hunter2"}"#, "line 1"),
            (r#"{"result": "hunter2"}"#, "line 1"),
            (r#"{"result": "hash"}"#, "no password hash"),
            (
                r#"{"result": "accepted", "user": {"root": "hunter2"}}"#,
                "root",
            ),
            (
                r#"{"result": "accepted", "user": {"quota": null}}"#,
                "line 1",
            ),
            (
                r#"{"result": "hash", "user": {"password": "hunter2"}}"#,
                "password",
            ),
        ] {
            let error = ask(answer).expect_err(answer);
            assert!(error.contains(part), "{answer}: {error}");
            if !answer.contains("root") {
                assert!(!error.contains("hunter2"), "{answer}: {error}");
            }
        }
    }
}
