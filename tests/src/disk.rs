//! A disk of a test's own: an ext4 image on a loop device, that can lose power or fill up.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted image. Needs the right to mount, which containers often lack.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts one of so many MiB; the reason, if this machine does not let us.
    pub fn new(mebibytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder for a disk");
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20));
        file.map_err(|error| format!("an image cannot be made: {error}"))?;
        // No reserved blocks: full is full, for root too.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        std::fs::create_dir(folder.path().join("mount")).expect("a folder to mount on");
        let mut disk = Self { folder, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Mounts it, which replays the journal if the power was cut.
    pub fn mount(&mut self) -> Result<(), String> {
        let (image, path) = (self.folder.path().join("image"), self.path());
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(path))?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: what was not written to the disk by now is lost, and so is what the journal has not committed
    /// (FS_IOC_SHUTDOWN without a flush of the log). Nothing works on it any more until it is mounted anew.
    pub fn cut_the_power(&self) -> Result<(), String> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path()))
    }

    /// Unmounts it; nobody may use it any more.
    pub fn unmount(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        Ok(())
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        free(&self.path())
    }
}

/// Bytes that are free on the disk of a folder.
fn free(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder).expect("a disk can be measured");
    disk.f_bavail * disk.f_frsize
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, as a test that fails may leave somebody in it.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} says: {}", said.trim().lines().next().unwrap_or("nothing")))
}
