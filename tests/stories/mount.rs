//! File systems of a story's own, which only root can have: small ones, and ones that fail.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::World;

/// A memory disk.
pub struct Mount(PathBuf);

impl Mount {
    /// Of this size, as mount(8) takes it; `None` where nothing can be mounted.
    pub fn new(path: PathBuf, size: &str) -> Option<Mount> {
        Mount::with(path, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    fn with(path: PathBuf, arguments: &[&str]) -> Option<Mount> {
        fs::create_dir_all(&path).expect("a directory");
        run("mount", arguments, &path).then_some(Mount(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro"], &self.0));
    }

    pub fn writable(&self) {
        assert!(run("mount", &["-o", "remount,rw"], &self.0));
    }

    /// Fills it with a file of somebody else's, up to the last byte or so many bytes before it.
    pub fn fill(&self, left_bytes: usize) -> Ballast {
        const CHUNK_BYTES: usize = 64 << 10;
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("a file");
        let mut written = 0;
        while let Ok(bytes @ 1..) = file.write(&[1; CHUNK_BYTES]) {
            written += bytes;
        }
        file.set_len(written.saturating_sub(left_bytes) as u64).expect("it can be cut");
        Ballast(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file that takes the room.
pub struct Ballast(PathBuf);

impl Ballast {
    pub fn remove(self) {
        fs::remove_file(&self.0).expect("it is there");
    }
}

/// A file system in a file, which can be made to fail as an SD card does.
pub struct Card {
    image: PathBuf,
    mount: Option<Mount>,
}

impl Card {
    /// One which the system turns read-only under its users when it finds an error.
    pub fn new(world: &World) -> Option<Card> {
        Card::at(world, world.path("card.img"), &[], "remount-ro")
    }

    /// One that lies on another disk and has been promised more room than that one has: what is written fails once that is full, whatever
    /// its file system believes.
    pub fn overcommitted(world: &World, disk: &Mount) -> Option<Card> {
        // With a journal of its own, one failed write would be its last.
        Card::at(world, disk.path().join("card.img"), &["-O", "^has_journal", "-E", "nodiscard"], "continue")
    }

    fn at(world: &World, image: PathBuf, make: &[&str], errors: &str) -> Option<Card> {
        File::create(&image).and_then(|file| file.set_len(512 << 20)).expect("an image");
        if !run("mkfs.ext4", &[&["-q"], make].concat(), &image) {
            return None;
        }
        let mut card = Card { image, mount: None };
        card.insert(&world.path("card"), errors).then_some(card)
    }

    pub fn path(&self) -> &Path {
        self.mount.as_ref().expect("it is mounted").path()
    }

    /// Mounts it; whether that can be done here.
    fn insert(&mut self, at: &Path, errors: &str) -> bool {
        let options = format!("loop,errors={errors}");
        self.mount = Mount::with(at.to_owned(), &["-o", &options, &self.image.display().to_string()]);
        self.mount.is_some()
    }

    /// The system finds an error on it; whether it can be made to.
    pub fn fail(&self) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let here = self.path().display().to_string();
        let device = mounts.lines().find_map(|line| line.strip_prefix("/dev/")?.split_once(&format!(" {here} "))).expect("it is mounted").0;
        let told = fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1");
        told.as_ref().err().is_none_or(|error| skipped(&error.to_string()))
    }

    /// Takes it out and puts it in again, which mends it.
    pub fn mend(&mut self) {
        let mount = self.mount.take().expect("it is mounted");
        assert!(run("umount", &[], mount.path()), "somebody still uses it");
        let at = mount.path().to_owned();
        std::mem::forget(mount);
        assert!(self.insert(&at, "remount-ro"));
    }
}

/// Runs a command on a path; whether it can be done here.
fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    match Command::new(program).args(arguments).arg(path).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(&format!("{program}: {error}")),
    }
}

fn skipped(why: &str) -> bool {
    eprintln!("skipped, or in part: file systems cannot be had as wanted here: {}", why.trim());
    false
}
