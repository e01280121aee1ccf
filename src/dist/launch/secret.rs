//! The secret that the workers of a job share.

use super::environment::Env;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of the shortest secret.
const LEAST: usize = 16;
/// Bytes of the longest secret.
const MOST: usize = 4096;

/// A secret. It is not printed with `{:?}`, and its memory is cleared when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret of 16 to 4096 bytes.
    ///
    /// # Errors
    /// A shorter or longer one; `origin` is where it came from.
    pub fn new(bytes: Vec<u8>, origin: &str) -> Result<Secret> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            LEAST..=MOST => Ok(Secret(bytes)),
            found if found > MOST => Err(Error::Config(format!("the secret in `{origin}` has more than {MOST} bytes"))),
            found => Err(Error::Config(format!(
                "the secret in `{origin}` has {found} bytes, at least {LEAST} are needed; \
                 `head -c 32 /dev/urandom | base64` makes a good one"
            ))),
        }
    }

    /// The bytes, to give away; they are still cleared when they are dropped.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret of the job: from a file, else from `DQRM_SECRET`, without one newline at its end. Never from a
/// command line, which every user of a host can read.
///
/// # Errors
/// A file that cannot be read, that others can read too (on Unix: any permission of others, or of a group unless root
/// owns the file and the group may only read), less than 16 or more than 4096 bytes.
pub fn secret(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Secret>> {
    if let Some(path) = file {
        return read(path).map(Some);
    }
    let Some(value) = Env(env).text("DQRM_SECRET").map(String::into_bytes).map(Zeroizing::new) else { return Ok(None) };
    Secret::new(without_newline(&value).to_vec(), "DQRM_SECRET").map(Some)
}

fn read(path: &Path) -> Result<Secret> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    alone(&file, path)?;
    // A secret, the longest newline, and a byte that shows that there is more.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 3));
    file.take(MOST as u64 + 3).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Secret::new(without_newline(&bytes).to_vec(), &path.display().to_string())
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Refuses a file that others can read.
#[cfg(unix)]
fn alone(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata().map_err(Error::io("read", path))?;
    // Mounted secrets belong to root and are read by a group.
    let allowed = if found.uid() == 0 { 0o740 } else { 0o700 };
    match found.mode() & 0o777 & !allowed {
        0 => Ok(()),
        _ => Err(Error::Config(format!(
            "the secret file `{}` is open to other users (mode {:03o}); run `chmod 600` on it and choose a new secret",
            path.display(),
            found.mode() & 0o777
        ))),
    }
}

#[cfg(not(unix))]
fn alone(_: &File, _: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn of_variable(value: &str) -> Result<Option<Secret>> {
        secret(None, &|name| (name == "DQRM_SECRET").then(|| value.to_owned()))
    }

    fn of_file(bytes: &[u8], mode: u32) -> Result<Option<Secret>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        #[cfg(not(unix))]
        let _ = mode;
        secret(Some(&path), &|name| (name == "DQRM_SECRET").then(|| "another secret of good length".into()))
    }

    #[test]
    fn a_file_wins_over_the_environment_and_one_newline_is_left_out() {
        for (bytes, expected) in [
            (&b"0123456789abcdef"[..], &b"0123456789abcdef"[..]),
            (b"0123456789abcdef\n", b"0123456789abcdef"),
            (b"0123456789abcdef\r\n", b"0123456789abcdef"),
            (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
            (b"\x00\xff23456789abcdef", b"\x00\xff23456789abcdef"),
        ] {
            assert_eq!(of_file(bytes, 0o600).unwrap().unwrap().bytes(), expected);
        }
        assert_eq!(of_variable("0123456789abcdef\n").unwrap().unwrap().bytes(), b"0123456789abcdef");
        assert!(of_variable("").unwrap().is_none() && secret(None, &none).unwrap().is_none());
    }

    #[test]
    fn secrets_have_16_to_4096_bytes() {
        let error = |bytes: &[u8]| of_file(bytes, 0o600).unwrap_err().to_string();
        assert!(error(b"").contains("has 0 bytes, at least 16 are needed"));
        assert!(error(b"0123456789abcde\n").contains("has 15 bytes"));
        assert!(error(&[7; 4097]).contains("has more than 4096 bytes"));
        assert!(error(&[7; 1 << 20]).contains("has more than 4096 bytes"));
        assert_eq!(of_file(&[7; 4096], 0o600).unwrap().unwrap().bytes().len(), 4096);
        let error = of_variable("too short a one").unwrap_err().to_string();
        assert!(error.contains("`DQRM_SECRET` has 15 bytes") && !error.contains("too short a one"));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = of_variable("0123456789abcdef").unwrap().unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = secret(Some(Path::new("/no/such/file")), &none).unwrap_err().to_string();
        assert!(error.contains("cannot read `/no/such/file`"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o604, 0o644, 0o606, 0o601, 0o660, 0o777] {
            let error = of_file(b"0123456789abcdef", mode).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:o}); run `chmod 600`")), "{error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            assert!(of_file(b"0123456789abcdef", mode).is_ok());
        }
        // Read by a group: only where root owns the file.
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempfile().unwrap().metadata().unwrap().uid() == 0;
        assert_eq!(of_file(b"0123456789abcdef", 0o440).is_ok(), root);
    }
}
