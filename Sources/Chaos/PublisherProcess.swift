import Foundation
import Postgres
import Rig

/// A publisher, which is a process of its own: it publishes whenever it is permitted, and tells what came of it.
package struct PublisherProcess: Sendable {
  private let socket: String
  private let index: Int
  private let seed: UInt64
  private let database: String
  private let isBulk: Bool

  package init(socket: String, index: Int, seed: UInt64, database: String, isBulk: Bool) {
    (self.socket, self.index, self.seed, self.database, self.isBulk) = (socket, index, seed, database, isBulk)
  }

  package func run() async throws {
    let session = Session(.init(connectionString: database, applicationName: "publisher"), name: "publisher")
    let (socket, index, seed) = (socket, index, seed)
    if isBulk {
      try await session.run { connected in
        var publisher = BulkPublisher(publisher: index, seed: seed)
        try PublisherLine.work(socket) { try publisher.publish(connected) }
      }
    } else {
      try await session.run { connected in
        var publisher = Publisher(publisher: index, seed: seed)
        try PublisherLine.work(socket) { try publisher.publish(connected) }
      }
    }
  }
}

/// The publishers of a run, as the checker sees them.
struct Publishers: Sendable {
  var count: Int
  var isBulk: Bool
  var seed: UInt64
  var database: String
  var keeper: ChildKeeper
  var logs: URL

  /// Has all of them publish for as long as `permit` (which may block) says so, and takes what each transaction came to.
  /// Throws if one ends before its time; the others then get no more permits.
  func run<Record: Decodable & Sendable>(
    permit: @escaping @Sendable () -> Bool,
    take: @escaping @Sendable (Record) -> Void
  ) async throws {
    let program = try Executable.path()
    let listener = try PublisherLine.Listener(logs.appendingPathComponent("publishers"))
    let children = try (0..<count).map { index in
      try keeper.start(
        [
          program, "chaos", "publisher", "--socket", listener.path, "--index", "\(index)", "--seed", "\(seed)",
          "--database-url", database,
        ] + (isBulk ? ["--bulk"] : []),
        log: logs.appendingPathComponent("publisher-\(index).log")
      )
    }
    let hasFailed = StopFlag()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in children {
        group.addTask {
          try await onThread {
            do {
              guard let line = listener.accept(within: .seconds(60)) else {
                throw ChaosError("a publisher did not start")
              }
              try PublisherLine.serve(line, permit: { !hasFailed.isSet && permit() }, take: take)
            } catch {
              hasFailed.set()
              throw error
            }
          }
        }
      }
      try await group.waitForAll()
    }
    for child in children {
      guard try await child.waitForExit(within: .seconds(20)) == .exited(0) else {
        throw ChaosError("a publisher (process \(child.pid)) did not come to an orderly end")
      }
      keeper.forget(child)
    }
  }
}

/// Runs something that blocks on a thread of its own.
private func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
  try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
  }
}
