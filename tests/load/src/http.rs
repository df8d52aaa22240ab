//! As much of an HTTP client as long polling takes: one connection that is kept, one request at a time.

use std::io;
use std::str;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Target, unexpected};

/// A connection that is kept between requests.
#[derive(Debug)]
pub struct HttpConnection {
    stream: TcpStream,
    host: String,
    input: Vec<u8>,
    body: Vec<u8>,
}

impl HttpConnection {
    /// Connects; `number` chooses the address it comes from.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn open(target: &Target, number: usize) -> io::Result<Self> {
        let stream = target.connect(number).await?;
        Ok(Self { stream, host: target.address.to_string(), input: Vec::new(), body: Vec::new() })
    }

    /// Asks for `path` and returns the body of the answer.
    ///
    /// # Errors
    /// The connection is broken, or the answer has not status 200.
    pub async fn get(&mut self, path: &str) -> io::Result<&[u8]> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.exchange(request.as_bytes()).await
    }

    /// Posts text to `path` and returns the body of the answer.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&mut self, path: &str, text: &str) -> io::Result<&[u8]> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n\
             {text}",
            self.host,
            text.len(),
        );
        self.exchange(request.as_bytes()).await
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        self.stream.write_all(request).await?;
        let (size, length) = loop {
            self.read().await?;
            if let Some(head) = parse_head(&self.input)? {
                break head;
            }
        };
        self.input.drain(..size);
        self.body.clear();
        match length {
            Length::Bytes(bytes) => self.take(bytes).await?,
            Length::Chunks => while self.take_chunk().await? {},
        }
        Ok(&self.body)
    }

    /// Moves bytes from the input to the body.
    async fn take(&mut self, bytes: usize) -> io::Result<()> {
        while self.input.len() < bytes {
            self.read().await?;
        }
        self.body.extend(self.input.drain(..bytes));
        Ok(())
    }

    /// Moves a chunk from the input to the body; false if it was the last.
    async fn take_chunk(&mut self) -> io::Result<bool> {
        let (head, bytes) = loop {
            match httparse::parse_chunk_size(&self.input) {
                Ok(httparse::Status::Complete((head, bytes))) => break (head, bytes as usize),
                Ok(httparse::Status::Partial) => self.read().await?,
                Err(_) => return Err(unexpected("a chunk without a size".to_owned())),
            }
        };
        self.input.drain(..head);
        self.take(bytes + 2).await?;
        self.body.truncate(self.body.len() - 2); // the line end behind the chunk
        Ok(bytes > 0)
    }

    async fn read(&mut self) -> io::Result<()> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How a body says where it ends.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunks,
}

/// The size of an answer's head, once all of it is there, and how long the body is.
fn parse_head(input: &[u8]) -> io::Result<Option<(usize, Length)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(input).map_err(|error| unexpected(error.to_string()))?;
    let httparse::Status::Complete(size) = status else { return Ok(None) };
    if response.code != Some(200) {
        return Err(unexpected(String::from_utf8_lossy(input).into_owned()));
    }
    let header = |name| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    };
    let bytes = header("Content-Length").and_then(|value| value.parse().ok()).map(Length::Bytes);
    let chunks = || header("Transfer-Encoding").is_some().then_some(Length::Chunks);
    let length = bytes.or_else(chunks).ok_or_else(|| unexpected("a body without a length".to_owned()))?;
    Ok(Some((size, length)))
}

const READ_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bodies_end_by_their_length_or_by_their_chunks() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target =
            Target { address: listener.local_addr().unwrap(), path: "/".to_owned(), namespace: "/".to_owned() };
        let (client, accepted) = tokio::join!(HttpConnection::open(&target, 0), listener.accept());
        let (mut client, mut server) = (client.unwrap(), accepted.unwrap().0);
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        ] {
            server.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(client.get("/").await.unwrap(), b"hello");
        }
        server.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert!(client.post("/", "text").await.unwrap_err().to_string().contains("400"));
    }
}
