import Synchronization

/// Becomes known once: the port a receiver listens on, or why it never will.
final class ListeningPort: Sendable {
  private enum State {
    /// Nobody knows yet; these wait. Becomes `known`.
    case pending([Int: CheckedContinuation<UInt16, any Error>])
    /// Final.
    case known(Result<UInt16, ReceiverError>)
  }

  private let state = Mutex<(State, nextID: Int)>((.pending([:]), 0))

  /// Tells everybody who waits, now or later. Only the first call counts.
  func resolve(_ result: Result<UInt16, ReceiverError>) {
    let waiting: [CheckedContinuation<UInt16, any Error>] = state.withLock { state in
      guard case .pending(let waiting) = state.0 else { return [] }
      state.0 = .known(result)
      return Array(waiting.values)
    }
    for continuation in waiting { continuation.resume(with: result.mapError { $0 as any Error }) }
  }

  /// The port, once it is known. Throws ``ReceiverError``, or `CancellationError` if the caller is cancelled.
  var value: UInt16 {
    get async throws {
      let id = state.withLock { state in
        state.nextID += 1
        return state.nextID
      }
      return try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation { continuation in
          let result: Result<UInt16, any Error>? = state.withLock { state in
            switch state.0 {
            case .known(let result):
              return result.mapError { $0 }
            case .pending(var waiting):
              // The cancellation handler may have run already, and then finds nothing to resume.
              if Task.isCancelled { return .failure(CancellationError()) }
              waiting[id] = continuation
              state.0 = .pending(waiting)
              return nil
            }
          }
          if let result { continuation.resume(with: result) }
        }
      } onCancel: {
        let continuation: CheckedContinuation<UInt16, any Error>? = state.withLock { state in
          guard case .pending(var waiting) = state.0 else { return nil }
          let continuation = waiting.removeValue(forKey: id)
          state.0 = .pending(waiting)
          return continuation
        }
        continuation?.resume(throwing: CancellationError())
      }
    }
  }
}
