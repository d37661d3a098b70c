//! An admin API with prepared answers, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::harness::peer::PATIENCE;

/// Its socket, and what it has been asked.
pub(crate) struct Canned {
    pub(crate) socket: PathBuf,
    asked: Receiver<String>,
}

impl Canned {
    /// Gives the answers one after the other, each a status and a body; then it is gone.
    pub(crate) fn start(folder: &Path, answers: Vec<(u16, String)>) -> Self {
        let socket = folder.join("canned.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        let (sender, asked) = channel();
        let path = socket.clone();
        thread::spawn(move || {
            for (status, body) in answers {
                let (stream, _) = listener.accept().expect("accept");
                let request = answer(stream, status, &body);
                if sender.send(request).is_err() {
                    break;
                }
            }
            std::fs::remove_file(path).expect("remove the socket");
        });
        Self { socket, asked }
    }

    /// The method and the path of the next request.
    #[track_caller]
    pub(crate) fn asked(&self) -> String {
        self.asked.recv_timeout(PATIENCE).expect("a request")
    }
}

fn answer(mut stream: UnixStream, status: u16, body: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
    let mut reader = BufReader::new(stream.try_clone().expect("dup"));
    let mut first = String::new();
    reader.read_line(&mut first).expect("a request");
    let mut len = 0;
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).expect("a header"), 0, "the end amid the headers");
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().expect("a number");
        }
    }
    reader.read_exact(&mut vec![0; len]).expect("the body");
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).expect("answer");
    first.trim_end().trim_end_matches(" HTTP/1.1").to_owned()
}
