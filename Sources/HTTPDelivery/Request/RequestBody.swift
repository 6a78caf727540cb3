import Glibc

/// Immutable bytes at a stable address, shared by reference.
///
/// libcurl reads a body in place while it sends it, so the bytes must neither move nor change until the exchange is
/// over. One body can serve many requests: an event that goes to ten endpoints is rendered once.
///
/// `@unchecked Sendable`: the memory is written only inside `init`, before any other thread can hold a reference, and
/// is freed only in `deinit`, when none can hold one any more. In between it is only read.
package final class RequestBody: @unchecked Sendable {
  package let bytes: UnsafeRawBufferPointer

  package var count: Int { bytes.count }

  package convenience init(_ bytes: some Collection<UInt8>) {
    let count = bytes.count
    self.init(capacity: count) { storage in
      // A collection that lies about its count must not leave uninitialised bytes behind.
      let (_, end) = storage.bindMemory(to: UInt8.self).initialize(from: bytes)
      return end
    }
  }

  /// Lets the caller write the bytes where they will be sent from.
  /// - Parameters:
  ///   - capacity: bytes to allocate.
  ///   - write: fills the buffer from its start and returns how many bytes it wrote.
  package init(capacity: Int, initializingWith write: (UnsafeMutableRawBufferPointer) -> Int) {
    precondition(capacity >= 0, "RequestBody: a negative capacity")
    // At least one byte: libcurl takes a null body to mean "call me back for it".
    guard let storage = malloc(max(capacity, 1)) else { fatalError("RequestBody: out of memory") }
    let count = write(UnsafeMutableRawBufferPointer(start: storage, count: capacity))
    precondition((0...capacity).contains(count), "RequestBody: the writer reports more bytes than it was given")
    bytes = UnsafeRawBufferPointer(start: storage, count: count)
  }

  deinit {
    free(UnsafeMutableRawPointer(mutating: bytes.baseAddress))
  }
}
