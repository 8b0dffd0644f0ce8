//! Output files that count their bytes and show progress.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::save::{Progress, SaveOptions};
use super::stream::PIECE;

/// A buffered file that counts what is written to it and shows progress.
pub(super) struct Counted<'a> {
    out: BufWriter<&'a fs::File>,
    path: &'a Path,
    done: u64,
    shown: u64,
    total: u64,
    options: &'a SaveOptions,
}

impl<'a> Counted<'a> {
    pub fn new(file: &'a fs::File, path: &'a Path, total: u64, options: &'a SaveOptions) -> Counted<'a> {
        Counted {
            out: BufWriter::with_capacity(256 << 10, file),
            path,
            done: 0,
            shown: 0,
            total,
            options,
        }
    }

    /// Writes zeros up to a multiple of `alignment`; gives the offset.
    pub fn pad(&mut self, alignment: u64) -> io::Result<u64> {
        let zeros = self.done.next_multiple_of(alignment) - self.done;
        self.write_all(&vec![0; zeros as usize])?;
        Ok(self.done)
    }

    fn show(&mut self) -> io::Result<()> {
        self.options.stop.check().map_err(io::Error::other)?;
        self.shown = self.done;
        if let Some(progress) = &self.options.progress {
            progress(Progress {
                file: self.path,
                done: self.done,
                total: self.total,
            });
        }
        Ok(())
    }

    /// Brings everything to the disk; gives the bytes of the file.
    pub fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        self.total = self.done;
        self.show()?;
        Ok(self.done)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.done += count as u64;
        if self.done - self.shown >= PIECE as u64 {
            self.show()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
