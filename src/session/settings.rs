//! What changes or tells the session's settings: TYPE MODE STRU ALLO FEAT OPTS HELP SYST NOOP LANG
//! CLNT CSID.

use super::Session;
use crate::proto::argument::TypeCode;
use crate::proto::command::{Command, OptsCommand, Verb};
use crate::proto::feature;
use crate::proto::reply::{Code, Reply};

impl Session {
    pub(super) fn setting(&mut self, command: Command<'_>) {
        match command {
            Command::Type(type_code) => {
                self.type_code = type_code;
                match type_code {
                    TypeCode::Ascii => self.say(Code::COMMAND_OK, "Type set to A."),
                    TypeCode::Image => self.say(Code::COMMAND_OK, "Type set to I."),
                }
            }
            Command::Stru(_) => self.say(Code::COMMAND_OK, "Structure set to F."),
            Command::Mode(_) => self.say(Code::COMMAND_OK, "Mode set to S."),
            Command::Allo(_) => self.say(Code::SUPERFLUOUS, "No allocation is needed."),
            Command::Noop => self.say(Code::COMMAND_OK, "NOOP ok."),
            Command::Syst => self.say(Code::SYSTEM_TYPE, "UNIX Type: L8"),
            Command::Feat => {
                let tls = self.limits.tls.offered;
                self.reply(feature::features(self.facts, self.hash, tls));
            }
            Command::Help(about) => self.help(about),
            Command::Opts(opts) => self.options(opts),
            Command::Lang(tag) => self.language(tag),
            Command::Clnt(_) => self.say(Code::COMMAND_OK, "Noted."),
            Command::Csid(_) => self.say(
                Code::COMMAND_OK,
                concat!(
                    "Name=ringftpd; Version=",
                    env!("CARGO_PKG_VERSION"),
                    "; OS=Linux; CaseSensitive=1; DirSep=/;"
                ),
            ),
            _ => {}
        }
    }

    fn help(&mut self, about: Option<&[u8]>) {
        match about {
            None => self.reply(feature::help(None)),
            Some(name) => match Verb::parse(name) {
                Some(Verb::Site) => self.reply(feature::site_help()),
                Some(verb) => self.reply(feature::help(Some(verb))),
                None => self.say(Code::BAD_ARGUMENT, "Unknown command."),
            },
        }
    }

    fn options(&mut self, opts: OptsCommand) {
        match opts {
            // Names are passed as bytes whatever is asked (RFC 2640 §3.1), so both answers are true.
            OptsCommand::Utf8 => self.say(Code::COMMAND_OK, "Names are passed as UTF-8."),
            OptsCommand::Mlst(facts) => {
                self.facts = facts;
                // RFC 3659 §7.9: the reply lists the facts that are on now.
                let names: String = facts.names().map(|name| format!("{name};")).collect();
                let text = format!("MLST OPTS {names}");
                self.reply(Reply::text(Code::COMMAND_OK, text.trim_end()));
            }
            OptsCommand::Hash(algorithm) => {
                if let Some(algorithm) = algorithm {
                    self.hash = algorithm;
                }
                self.say(Code::COMMAND_OK, self.hash.name());
            }
        }
    }

    /// RFC 2640 §4.1: only English is spoken; LANG without a tag returns to it.
    fn language(&mut self, tag: Option<&[u8]>) {
        match tag {
            None => self.say(Code::COMMAND_OK, "Replies are in English."),
            Some(tag)
                if tag.eq_ignore_ascii_case(b"en")
                    || tag
                        .get(..3)
                        .is_some_and(|head| head.eq_ignore_ascii_case(b"en-")) =>
            {
                self.say(Code::COMMAND_OK, "Replies are in English.");
            }
            Some(_) => self.say(Code::BAD_PARAMETER, "Language not supported, use EN."),
        }
    }
}
