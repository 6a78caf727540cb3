import CLibPQ
import Foundation

/// Interrupts the statement a connection is running. May be called from any thread, at any time, and does not block.
package final class Canceller: Sendable {
  // PGcancel is a copy of the server's address and key; PQcancel only reads it and is documented as thread-safe
  // (https://www.postgresql.org/docs/15/libpq-cancel.html), so sharing the pointer is safe until deinit frees it.
  nonisolated(unsafe) private let cancel: OpaquePointer
  private let gate = Gate()

  init(_ cancel: OpaquePointer) { self.cancel = cancel }

  deinit { PQfreeCancel(cancel) }

  /// Asks the server to end the running statement with SQLSTATE 57014, until it has ended. Nothing happens if none is
  /// running.
  package func callAsFunction() { request(refusing: false) }

  /// The same, and refuses statements that would begin after it; only a rollback still runs.
  func refuse() { request(refusing: true) }

  var isRefusing: Bool { gate.locked { $0.isRefusing } }

  /// False if the statement must not begin.
  func begin(evenIfRefusing: Bool) -> Bool {
    gate.locked { state in
      // A request under way could hit the statement after the one that it was meant for.
      while state.isSending { gate.condition.wait() }
      guard evenIfRefusing || !state.isRefusing else { return false }
      state.statement += 1
      state.isRunning = true
      return true
    }
  }

  func end() {
    gate.locked { $0.isRunning = false }
    gate.condition.broadcast()
  }

  private func request(refusing: Bool) {
    let statement: UInt64? = gate.locked { state in
      if refusing { state.isRefusing = true }
      guard state.isRunning, !state.hasThread else { return nil }
      state.hasThread = true
      return state.statement
    }
    guard let statement else { return }
    // A thread, because PQcancel blocks for a round trip and cancellation is often asked for on the shared threads.
    let thread = Thread { self.send(until: statement) }
    thread.stackSize = 256 << 10
    thread.start()
  }

  /// Repeats the request, because the server ignores one that arrives before the statement itself does.
  private func send(until statement: UInt64) {
    var message = [CChar](repeating: 0, count: 256)
    while gate.locked({ state in
      state.isSending = state.isRunning && state.statement == statement
      if !state.isSending { state.hasThread = false }
      return state.isSending
    }) {
      _ = PQcancel(cancel, &message, Int32(message.count))
      gate.locked { $0.isSending = false }
      gate.condition.broadcast()
      gate.locked { state in
        guard state.isRunning, state.statement == statement else { return }
        _ = gate.condition.wait(until: Date(timeIntervalSinceNow: 0.05))
      }
    }
  }

  private struct State {
    /// Counts statements, so that a request outlives none.
    var statement: UInt64 = 0
    var isRunning = false
    var isRefusing = false
    var isSending = false
    var hasThread = false
  }

  // @unchecked: `state` is only touched while `condition` is locked.
  private final class Gate: @unchecked Sendable {
    let condition = NSCondition()
    private var state = State()

    func locked<Value>(_ body: (inout State) -> Value) -> Value {
      condition.lock()
      defer { condition.unlock() }
      return body(&state)
    }
  }
}
