import Receiver

/// Runs `receiver`, calls `body` with its port once it listens, and stops it.
func withReceiver<Result: Sendable>(
  _ receiver: Receiver,
  _ body: (UInt16) async throws -> Result
) async throws -> Result {
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { try await receiver.run() }
    let port = try await receiver.waitUntilListening()
    let result = try await body(port)
    group.cancelAll()
    try await group.waitForAll()
    return result
  }
}
