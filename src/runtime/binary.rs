//! Reads just enough of a shared library's file format to say what is wrong with it before it is loaded.
//!
//! The system's loader is no judge of broken files: a cut-off ELF library is mapped as its headers say and the
//! process dies of SIGBUS when it touches the missing pages. So the sizes in the headers are held against the size
//! of the file first. Formats: ELF-64 (System V gABI, chapter 4), Mach-O 64 (`mach-o/loader.h`), PE32+.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// A processor architecture as Rust and the three formats call it.
struct Architecture {
    name: &'static str,
    elf: u16,
    mach: u32,
    pe: u16,
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "x86_64",
        elf: 62,
        mach: 0x0100_0007,
        pe: 0x8664,
    },
    Architecture {
        name: "aarch64",
        elf: 183,
        mach: 0x0100_000c,
        pe: 0xaa64,
    },
    Architecture {
        name: "x86",
        elf: 3,
        mach: 7,
        pe: 0x014c,
    },
    Architecture {
        name: "riscv64",
        elf: 243,
        mach: 0,
        pe: 0x5064,
    },
    Architecture {
        name: "powerpc64",
        elf: 21,
        mach: 0x0100_0012,
        pe: 0,
    },
    Architecture {
        name: "s390x",
        elf: 22,
        mach: 0,
        pe: 0,
    },
];

/// What the headers say.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    system: &'static str,
    architecture: Option<&'static str>,
    /// The smallest file that can hold everything the headers point to, in bytes.
    extent: u64,
}

/// Checks that the file is a whole shared library of this platform.
///
/// # Errors
/// The reason as a clause ("it is …"), for use in a sentence.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let header = read_header(&mut file, metadata.len())?;
    let system = if cfg!(target_os = "macos") {
        "macOS"
    } else if cfg!(windows) {
        "Windows"
    } else {
        "Linux"
    };
    if header.system != system {
        return Err(format!("it is a library for {}, and this is {system}", header.system));
    }
    if let Some(architecture) = header.architecture
        && architecture != std::env::consts::ARCH
    {
        return Err(format!(
            "it is built for {architecture}, and this program for {}",
            std::env::consts::ARCH
        ));
    }
    if metadata.len() < header.extent {
        return Err(format!(
            "it is cut off: {} bytes of at least {}",
            metadata.len(),
            header.extent
        ));
    }
    Ok(())
}

fn read_header(file: &mut (impl Read + Seek), length: u64) -> Result<Header, String> {
    let mut head = Vec::new();
    // ONNX Runtime's headers fit into a few hundred bytes; 64 KiB also holds Mach-O's long list of load commands.
    file.take(64 * 1024)
        .read_to_end(&mut head)
        .map_err(|error| error.to_string())?;
    let head = Fields(&head);
    if head.0.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let parsed = match head.0 {
        [0x7f, b'E', b'L', b'F', ..] => elf(head, file, length),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => mach(head),
        [0xca, 0xfe, 0xba, 0xbe, ..] => Some(Header {
            system: "macOS",
            architecture: None,
            extent: 0,
        }),
        [b'M', b'Z', ..] => pe(head),
        _ => return Err("it is not a shared library".to_owned()),
    };
    parsed.ok_or_else(|| "it is cut off within its headers".to_owned())
}

fn elf(head: Fields<'_>, file: &mut (impl Read + Seek), length: u64) -> Option<Header> {
    if head.byte(4)? != 2 || head.byte(5)? != 1 {
        // 32-bit or big-endian: never one of ours, and the field offsets below would be wrong.
        return Some(Header {
            system: "Linux",
            architecture: Some("another word size or byte order"),
            extent: 0,
        });
    }
    let machine = head.u16(18)?;
    let architecture = ARCHITECTURES
        .iter()
        .find(|known| known.elf == machine)
        .map_or("another architecture", |known| known.name);
    let (programs, sections) = (head.u64(32)?, head.u64(40)?);
    let (program_size, program_count) = (u64::from(head.u16(54)?), u64::from(head.u16(56)?));
    let (section_size, section_count) = (u64::from(head.u16(58)?), u64::from(head.u16(60)?));
    let table = programs.checked_add(program_size.checked_mul(program_count)?)?;
    let mut extent = table.max(sections.checked_add(section_size.checked_mul(section_count)?)?);
    if table <= length {
        file.seek(SeekFrom::Start(programs)).ok()?;
        let mut bytes = Vec::new();
        file.take(table - programs).read_to_end(&mut bytes).ok()?;
        for program in 0..usize::try_from(program_count).ok()? {
            let at = program * usize::try_from(program_size).ok()?;
            let segment = Fields(bytes.get(at..)?);
            extent = extent.max(segment.u64(8)?.checked_add(segment.u64(32)?)?);
        }
    }
    Some(Header {
        system: "Linux",
        architecture: Some(architecture),
        extent,
    })
}

fn mach(head: Fields<'_>) -> Option<Header> {
    const SEGMENT_64: u32 = 0x19;
    let processor = head.u32(4)?;
    let architecture = ARCHITECTURES
        .iter()
        .find(|known| known.mach == processor)
        .map_or("another architecture", |known| known.name);
    let mut extent = 32;
    let mut at = 32_usize;
    for _ in 0..head.u32(16)? {
        let (command, size) = (head.u32(at)?, usize::try_from(head.u32(at + 4)?).ok()?);
        if command == SEGMENT_64 {
            extent = extent.max(head.u64(at + 40)?.checked_add(head.u64(at + 48)?)?);
        }
        at = at.checked_add(size.max(8))?;
    }
    Some(Header {
        system: "macOS",
        architecture: Some(architecture),
        extent,
    })
}

fn pe(head: Fields<'_>) -> Option<Header> {
    let at = usize::try_from(head.u32(0x3c)?).ok()?;
    if head.u32(at)? != u32::from_le_bytes(*b"PE\0\0") {
        return Some(Header {
            system: "Windows",
            architecture: Some("16-bit Windows or DOS"),
            extent: 0,
        });
    }
    let machine = head.u16(at + 4)?;
    let architecture = ARCHITECTURES
        .iter()
        .find(|known| known.pe == machine)
        .map_or("another architecture", |known| known.name);
    let sections = at + 24 + usize::from(head.u16(at + 20)?);
    let mut extent = 0;
    for section in 0..usize::from(head.u16(at + 6)?) {
        let entry = sections + section * 40;
        extent = extent.max(u64::from(head.u32(entry + 20)?) + u64::from(head.u32(entry + 16)?));
    }
    Some(Header {
        system: "Windows",
        architecture: Some(architecture),
        extent,
    })
}

/// Little-endian fields at byte offsets; `None` where the bytes end.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    pub(super) fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(super) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Header, String> {
        read_header(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    /// A library with one loadable segment of `size` bytes.
    fn small_elf(machine: u16, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64 + 32..64 + 40].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    fn small_mach(processor: u32, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; 32 + 72];
        bytes[..4].copy_from_slice(&[0xcf, 0xfa, 0xed, 0xfe]);
        bytes[4..8].copy_from_slice(&processor.to_le_bytes());
        bytes[16..20].copy_from_slice(&1_u32.to_le_bytes());
        bytes[32..36].copy_from_slice(&0x19_u32.to_le_bytes());
        bytes[36..40].copy_from_slice(&72_u32.to_le_bytes());
        bytes[32 + 48..32 + 56].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    fn small_pe(machine: u16, size: u32) -> Vec<u8> {
        let mut bytes = vec![0; 0x40 + 24 + 40];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
        bytes[0x46..0x48].copy_from_slice(&1_u16.to_le_bytes());
        bytes[0x58 + 16..0x58 + 20].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    #[test]
    fn the_three_formats_are_told_apart_with_architecture_and_extent() {
        let expected = |system, architecture, extent| {
            Ok(Header {
                system,
                architecture: Some(architecture),
                extent,
            })
        };
        assert_eq!(parse(&small_elf(62, 5000)), expected("Linux", "x86_64", 5000));
        assert_eq!(parse(&small_elf(183, 10)), expected("Linux", "aarch64", 120));
        assert_eq!(
            parse(&small_mach(0x0100_000c, 7000)),
            expected("macOS", "aarch64", 7000)
        );
        assert_eq!(parse(&small_pe(0x8664, 900)), expected("Windows", "x86_64", 900));
    }

    #[test]
    fn files_that_are_no_libraries_are_named() {
        assert_eq!(parse(b""), Err("the file is empty".to_owned()));
        assert_eq!(parse(b"#!/bin/sh\n"), Err("it is not a shared library".to_owned()));
        assert_eq!(
            parse(b"\x7fELF\x02\x01"),
            Err("it is cut off within its headers".to_owned())
        );
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn a_file_shorter_than_its_headers_say_and_a_foreign_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library.so");
        let reason = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check(&path).unwrap_err()
        };
        assert_eq!(
            reason(&small_elf(62, 5000)),
            "it is cut off: 120 bytes of at least 5000"
        );
        assert_eq!(
            reason(&small_elf(183, 0)),
            "it is built for aarch64, and this program for x86_64"
        );
        assert_eq!(
            reason(&small_pe(0x8664, 0)),
            "it is a library for Windows, and this is Linux"
        );
        assert_eq!(check(folder.path()).unwrap_err(), "it is not a file");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in 0_usize..4) {
            let magics: [&[u8]; 4] = [b"\x7fELF\x02\x01", &[0xcf, 0xfa, 0xed, 0xfe], b"MZ", b""];
            let magic = magics[magic];
            if bytes.len() >= magic.len() {
                bytes[..magic.len()].copy_from_slice(magic);
            }
            let _ = parse(&bytes);
        }
    }
}
