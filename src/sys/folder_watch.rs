//! Folders in which files change: inotify(7), and what wakes the thread that waits for it.
//!
//! Folders are watched, not files: an editor and Kubernetes put another file, or another link, in the place of the one
//! that is there, and a watch of the old one would never report again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::Clock;

const CHANGES: Token = Token(0);
const WOKEN: Token = Token(1);
/// path_resolution(7): the kernel follows 40 links, too.
const LINKS_MAX: usize = 40;
const EVENTS_LEN: usize = 2;

/// Watches folders for one thread.
pub struct FolderWatch {
    poll: Poll,
    events: Events,
    inotify: Inotify,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
    /// The names that count in each of them.
    names: HashMap<WatchDescriptor, Names>,
    /// Files that were written to and not closed yet.
    open: HashSet<(WatchDescriptor, OsString)>,
}

/// Names in a folder: others come and go without a report.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(HashSet<OsString>),
}

/// Wakes the thread that waits.
#[derive(Clone)]
pub struct FolderWaker(Arc<Waker>);

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Something is different in a folder.
    Changed,
    /// The timeout has passed without a change.
    TimedOut,
    /// [`FolderWaker::wake`] was called.
    Woken,
}

impl FolderWaker {
    /// Ends a wait. One that fails leaves nothing to do: the thread sleeps on.
    pub fn wake(&self) {
        let _asleep = self.0.wake();
    }
}

impl FolderWatch {
    /// A watch of no folder. Fails where the user has too many of them (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<(Self, FolderWaker)> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let poll = Poll::new()?;
        let fd = inotify.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), CHANGES, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WOKEN)?;
        let (folders, names, open) = (BTreeMap::new(), HashMap::new(), HashSet::new());
        let watch = Self { poll, events: Events::with_capacity(EVENTS_LEN), inotify, folders, names, open };
        Ok((watch, FolderWaker(Arc::new(waker))))
    }

    /// Watches the way to `files` and to all that is in `folders` from now on, and nothing else. Returns whether a
    /// folder is new: what changed in there before was not reported. Fails when one cannot be watched, and watches the
    /// others.
    pub fn follow(&mut self, files: &[PathBuf], folders: &[PathBuf]) -> io::Result<bool> {
        let mut watched = BTreeMap::new();
        self.names.clear();
        let mut failed = None;
        for (folder, names) in wanted(files, folders) {
            // The same folder has the same descriptor; another one under its name has a new one.
            let mask = AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR;
            match self.inotify.add_watch(&folder, mask) {
                Ok(descriptor) => {
                    // Of a folder with two names, all counts.
                    let known = self.names.insert(descriptor, names);
                    if known.is_some() {
                        self.names.insert(descriptor, Names::All);
                    }
                    watched.insert(folder, descriptor);
                }
                Err(error) => failed = Some(io::Error::from(error)),
            }
        }
        let before = std::mem::replace(&mut self.folders, watched);
        let known: HashSet<WatchDescriptor> = before.into_values().collect();
        let now: HashSet<WatchDescriptor> = self.folders.values().copied().collect();
        for gone in known.difference(&now) {
            // EINVAL: the folder was removed, and its watch with it.
            let _gone = self.inotify.rm_watch(*gone);
        }
        self.open.retain(|(descriptor, _)| now.contains(descriptor));
        failed.map_or(Ok(now.difference(&known).next().is_some()), Err)
    }

    /// Waits until something changes that counts, for `timeout` at most.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wait> {
        let clock = Clock::of_process();
        let deadline = timeout.map(|timeout| clock.now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline - clock.now());
            match self.poll.poll(&mut self.events, left) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) | Ok(()) => {}
            }
            if self.events.iter().any(|event| event.token() == WOKEN) {
                return Ok(Wait::Woken);
            }
            if self.take_changes()? {
                return Ok(Wait::Changed);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Wait::TimedOut);
            }
        }
    }

    /// Whether a process writes to `file`: it has written to it, and not closed it yet.
    pub fn is_written(&self, file: &Path) -> bool {
        let Ok(file) = file.canonicalize() else { return false };
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return false };
        let descriptor = self.folders.get(folder);
        descriptor.is_some_and(|descriptor| self.open.contains(&(*descriptor, name.to_owned())))
    }

    fn take_changes(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(changed),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                // Too many for the queue: which of them are open is not known any more.
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.open.clear();
                }
                let Some(name) = event.name else {
                    changed = true;
                    continue;
                };
                changed |= match self.names.get(&event.wd) {
                    Some(Names::All) => true,
                    Some(Names::These(names)) => names.contains(&name),
                    None => false,
                };
                if event.mask.contains(AddWatchFlags::IN_MODIFY) {
                    self.open.insert((event.wd, name));
                } else if event.mask.intersects(
                    AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE,
                ) {
                    self.open.remove(&(event.wd, name));
                }
            }
        }
    }
}

/// Readable when there may be a change; a wait of no time then says whether there is one.
impl AsRawFd for FolderWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// Returns the folders to watch for `files` and for everything in `folders`.
fn wanted(files: &[PathBuf], folders: &[PathBuf]) -> BTreeMap<PathBuf, Names> {
    let mut wanted: BTreeMap<PathBuf, Names> = BTreeMap::new();
    for (folder, name) in files.iter().flat_map(|file| steps_to(file)) {
        if let Names::These(names) = wanted.entry(folder).or_insert_with(|| Names::These(HashSet::new())) {
            names.insert(name);
        }
    }
    for folder in folders {
        for (above, name) in steps_to(folder) {
            if let Names::These(names) = wanted.entry(above).or_insert_with(|| Names::These(HashSet::new())) {
                names.insert(name);
            }
        }
        wanted.insert(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()), Names::All);
    }
    wanted
}

/// The names which, given to something else, make `path` another file: its own and that of each link on the way, each
/// with the folder that it is in.
fn steps_to(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut way = Vec::new();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut here, mut rest) = (PathBuf::new(), parts(&path));
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == Component::ParentDir.as_os_str() {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                way.push((here.clone(), part));
                rest.extend(parts(&target));
            }
            Ok(_) | Err(_) => here = next,
        }
    }
    if let (Some(folder), Some(name)) = (here.parent(), here.file_name()) {
        way.push((folder.to_owned(), name.to_owned()));
    }
    way
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

    fn watch_of(files: &[PathBuf]) -> (FolderWatch, FolderWaker) {
        let (mut watch, waker) = FolderWatch::new().unwrap();
        assert!(watch.follow(files, &[]).unwrap(), "all is new");
        assert!(!watch.follow(files, &[]).unwrap(), "nothing is new");
        (watch, waker)
    }

    #[test]
    fn a_file_is_being_written_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("file");
        let (mut watch, _waker) = watch_of(std::slice::from_ref(&path));
        let mut file = File::create(&path).unwrap();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
        file.write_all(b"half").unwrap();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
        assert!(watch.is_written(&path));
        drop(file);
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
        assert!(!watch.is_written(&path));
    }

    #[test]
    fn another_file_in_its_place_is_a_change_and_so_is_another_link_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As Kubernetes mounts a ConfigMap.
        fs::create_dir(at("..1")).unwrap();
        fs::write(at("..1/file"), "1").unwrap();
        symlink("..1", at("..data")).unwrap();
        symlink("..data/file", at("file")).unwrap();
        let (mut watch, _waker) = watch_of(&[at("file")]);
        for version in ["..2", "..3"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), version).unwrap();
            symlink(version, at("..data_tmp")).unwrap();
            while watch.wait(Some(Duration::ZERO)).unwrap() == Wait::Changed {}
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
            assert!(watch.follow(&[at("file")], &[]).unwrap(), "the folder that it leads to is another");
        }
        // As editors save.
        fs::write(at("file.new"), "3").unwrap();
        while watch.wait(Some(Duration::ZERO)).unwrap() == Wait::Changed {}
        fs::rename(at("file.new"), at("file")).unwrap();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_and_a_wait_can_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watch, waker) = FolderWatch::new().unwrap();
        let error = watch.follow(&[folder.path().join("none/file")], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        waker.wake();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Woken);
    }

    #[test]
    fn a_link_that_leads_to_itself_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("a", folder.path().join("a")).unwrap();
        let way = steps_to(&folder.path().join("a"));
        assert!(way.contains(&(folder.path().to_owned(), "a".into())), "{way:?}");
    }

    #[test]
    fn only_names_that_count_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("all")).unwrap();
        let (mut watch, _waker) = FolderWatch::new().unwrap();
        watch.follow(&[at("file")], &[at("all")]).unwrap();
        fs::write(at("other"), "").unwrap();
        assert_eq!(watch.wait(Some(Duration::ZERO)).unwrap(), Wait::TimedOut);
        fs::write(at("all/other"), "").unwrap();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
        fs::write(at("file"), "").unwrap();
        assert_eq!(watch.wait(PATIENCE).unwrap(), Wait::Changed);
    }
}
