//! `ringftpd cert`: a certificate to try TLS out with.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::ToSpan;
use jiff::civil::Date;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::{Failure, print};

#[derive(Args, Debug)]
pub(super) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make a certificate that nobody vouches for, to try TLS out with
    SelfSigned(SelfSigned),
}

#[derive(Args, Debug)]
struct SelfSigned {
    /// A name or an address by which clients reach the server; may be repeated
    #[arg(long, value_name = "HOST", required = true)]
    host: Vec<String>,

    /// The file for the certificate and its key; it must not exist yet
    #[arg(long, value_name = "FILE")]
    file: PathBuf,

    /// How long it is good for
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

pub(super) fn run(args: &CertArgs) -> Result<(), Failure> {
    let CertCommand::SelfSigned(args) = &args.command;
    let pem = self_signed(args).map_err(|error| Failure::usage(format!("ringftpd: {error}")))?;
    let path = args.file.display();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        // The key is nobody else's.
        .mode(0o600)
        .open(&args.file)
        .and_then(|mut file| file.write_all(pem.as_bytes()));
    written.map_err(|error| Failure::usage(format!("ringftpd: {path}: {error}")))?;
    let absolute = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    print(&format!(
        "{path} holds a certificate for {}, good for {} days, and its key. For the configuration:\n\n\
         [tls]\ncertificates = [{absolute:?}]\n\n\
         Clients do not trust it unless they are told to: curl --ssl-reqd --cacert FILE, lftp's\n\
         ssl:ca-file. If the server becomes another user (server.user), give that one the file.\n",
        args.host.join(", "),
        args.days,
    ))
}

/// The certificate and its key (ECDSA on P-256, which every client knows and which costs least).
fn self_signed(args: &SelfSigned) -> Result<String, String> {
    let mut parameters =
        CertificateParams::new(args.host.clone()).map_err(|error| error.to_string())?;
    let name = &mut parameters.distinguished_name;
    *name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, args.host[0].as_str());
    // Clocks of clients may be a little slow.
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let begin = today.saturating_sub(1.day());
    let end = today.saturating_add(i64::from(args.days).days());
    let midnight = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    parameters.not_before = midnight(begin);
    parameters.not_after = midnight(end);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = parameters
        .self_signed(&key)
        .map_err(|error| error.to_string())?;
    Ok(certificate.pem() + &key.serialize_pem())
}
