//! Text that must not be shown, and the token secret a server makes for itself.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::id;

/// A password or key; `Debug` shows only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads the token secret kept in `data_dir`, or makes one there: 256 random bits in a file only its owner can read.
///
/// Several processes may do so at once; all end with the same secret.
///
/// # Errors
/// Whatever the file system answers; [`ErrorKind::InvalidData`] where the file holds no usable secret, because
/// replacing it silently would turn every token in use invalid.
pub fn load_or_create(data_dir: &Path) -> io::Result<Secret> {
    create_private_dir(data_dir)?;
    let path = data_dir.join(SECRET_FILE);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        kept => return usable(&kept?),
    }
    // Written aside and linked into place, so that no reader ever sees half a secret, and the first writer wins.
    let draft = data_dir.join(format!("{SECRET_FILE}.{}", id::row_id()));
    let result = write_private(&draft, &id::jwt_secret()).and_then(|()| publish(&draft, &path));
    let _ = fs::remove_file(&draft); // after a rename it is gone already
    result?;
    File::open(data_dir)?.sync_all()?;
    usable(&fs::read_to_string(&path)?)
}

/// Makes a directory that only its owner can enter; one that is there already keeps its mode.
///
/// # Errors
/// Whatever the file system answers.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems know no hard links; there the last of several simultaneous first starts wins.
        Err(_) => fs::rename(draft, path),
        Ok(()) => Ok(()),
    }
}

fn usable(text: &str) -> io::Result<Secret> {
    let secret = text.trim();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{SECRET_FILE} holds fewer than {MIN_SECRET_BYTES} bytes; delete it to have a new one made"),
        ));
    }
    Ok(Secret::new(secret))
}

/// Name of the file with the generated secret.
pub const SECRET_FILE: &str = "jwt_secret";

/// Shortest secret HS256 is meant for: the size of its hash (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn debug_does_not_show_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn a_made_secret_is_kept_and_private() {
        let dir = TempDir::new();
        let data = dir.path().join("a/b");
        let first = load_or_create(&data).unwrap();
        assert_eq!(first.expose().len(), 43);
        assert_eq!(load_or_create(&data).unwrap(), first);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::metadata(data.join(SECRET_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn simultaneous_first_starts_agree() {
        let dir = TempDir::new();
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let path = dir.path().to_owned();
                thread::spawn(move || load_or_create(&path).unwrap())
            })
            .collect();
        let secrets: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn a_damaged_secret_is_an_error_and_stays() {
        let dir = TempDir::new();
        fs::write(dir.path().join(SECRET_FILE), "short\n").unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(fs::read_to_string(dir.path().join(SECRET_FILE)).unwrap(), "short\n");
    }
}
