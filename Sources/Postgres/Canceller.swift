import CLibPQ

/// Interrupts the statement a connection is running. May be called from any thread, at any time.
package final class Canceller: Sendable {
  // PGcancel is a copy of the server's address and key; PQcancel only reads it and is documented as thread-safe
  // (https://www.postgresql.org/docs/15/libpq-cancel.html), so sharing the pointer is safe until deinit frees it.
  nonisolated(unsafe) private let cancel: OpaquePointer

  init(_ cancel: OpaquePointer) { self.cancel = cancel }

  deinit { PQfreeCancel(cancel) }

  /// Asks the server to end the running statement with SQLSTATE 57014. Nothing happens if none is running.
  package func callAsFunction() {
    var message = [CChar](repeating: 0, count: 256)
    _ = PQcancel(cancel, &message, Int32(message.count))
  }
}
