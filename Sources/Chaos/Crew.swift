import EmbeddedPostgres
import Foundation
import Rig
import Synchronization

/// Three dispatchers, processes of this very executable, and whoever starts them again when they end.
final class Crew: Sendable {
  static let size = 3
  static let leaseSeconds = 3

  struct Member: Sendable {
    var child: ChildProcess?
    var generation = 0
    /// How many faults want it to stand still: it goes on when none does.
    var holds = 0
  }

  private struct State {
    var members = [Member](repeating: Member(), count: Crew.size)
    var isOver = false
    /// How often one ended without being told to.
    var ends = 0
  }

  private let program: String
  private let databases: [String]
  private let keeper: ChildKeeper
  private let logs: URL
  private let prefix: @Sendable (Int) -> [String]
  private let state = Mutex(State())

  /// - Parameters:
  ///   - databases: a connection string for each.
  ///   - prefix: the command that becomes the dispatcher, for the one in this place.
  init(databases: [String], keeper: ChildKeeper, logs: URL, prefix: @escaping @Sendable (Int) -> [String]) throws {
    program = try Executable.path()
    self.databases = databases
    self.keeper = keeper
    self.logs = logs
    self.prefix = prefix
  }

  var endsByItself: Int { state.withLock { $0.ends } }
  func child(_ place: Int) -> ChildProcess? { state.withLock { $0.members[place].child } }

  func start(_ place: Int) throws {
    try state.withLock { state in
      guard !state.isOver, state.members[place].child == nil else { return }
      state.members[place].generation += 1
      state.members[place].holds = 0
      state.members[place].child = try keeper.start(
        prefix(place) + [
          program, "dispatch", "--name", "chaos-\(place)", "--database-url", databases[place], "--allow-http",
          "--allow-network", "127.0.0.0/8", "--lease", "\(Self.leaseSeconds)", "--grace", "5", "--reconcile-every", "0",
        ],
        log: logs.appendingPathComponent("dispatcher-\(place).log")
      )
    }
  }

  /// As a service manager does: starts again what has ended. Runs until cancelled.
  func supervise() async throws {
    while !Task.isCancelled {
      for place in 0..<Self.size {
        let ended = state.withLock { state -> ChildProcess? in
          guard !state.isOver, let child = state.members[place].child, child.exitStatus() != nil else { return nil }
          state.members[place].child = nil
          state.ends += 1
          return child
        }
        if let ended { keeper.forget(ended) }
        try start(place)
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  /// Ends one for good; the supervisor starts another.
  func end(_ place: Int, with signal: Int32) async throws {
    guard
      let child = state.withLock({ state -> ChildProcess? in
        defer { state.members[place].child = nil }
        return state.members[place].child
      })
    else { return }
    child.signal(signal)
    guard try await child.waitForExit(within: .seconds(30)) != nil else {
      throw ChaosError("dispatcher \(place) (process \(child.pid)) did not end after signal \(signal)")
    }
    keeper.forget(child)
  }

  /// Stops one and returns it when it stands still, or has ended; nil if none is running there.
  func hold(_ place: Int) async throws -> ChildProcess? {
    guard let child = beginHold(place) else { return nil }
    do {
      try await awaitStop(child)
    } catch {
      release(place, child)
      throw error
    }
    return child
  }

  private func beginHold(_ place: Int) -> ChildProcess? {
    state.withLock { state in
      guard let child = state.members[place].child else { return nil }
      state.members[place].holds += 1
      child.signal(SIGSTOP)
      return child
    }
  }

  /// SIGSTOP only asks: on a busy machine threads have gone on for a tenth of a second, and cut and delivered meanwhile.
  private func awaitStop(_ child: ChildProcess) async throws {
    try await eventually("a dispatcher (process \(child.pid)) stands still", within: .seconds(30)) {
      child.isStopped() || child.exitStatus() != nil
    }
  }

  /// Ends what ``hold(_:)`` began; another fault may still want it to stand still.
  func release(_ place: Int, _ child: ChildProcess) {
    state.withLock { state in
      // Another may be in its place by now.
      guard state.members[place].child === child else { return }
      state.members[place].holds -= 1
      if state.members[place].holds == 0 { child.signal(SIGCONT) }
    }
  }

  /// All at once: nobody does anything while `body` looks.
  func whileFrozen<Value>(_ body: () async throws -> Value) async throws -> Value {
    let held = (0..<Self.size).compactMap { place in beginHold(place).map { (place, $0) } }
    defer { for (place, child) in held { release(place, child) } }
    for (_, child) in held { try await awaitStop(child) }
    return try await body()
  }

  /// In order, and tells whether each came to an orderly end.
  func dismiss() async throws {
    let children = state.withLock { state -> [ChildProcess] in
      state.isOver = true
      return state.members.compactMap(\.child)
    }
    for child in children { child.signal(SIGTERM) }
    for child in children {
      guard try await child.waitForExit(within: .seconds(20)) == .exited(0) else {
        throw ChaosError("a dispatcher (process \(child.pid)) did not stop in order")
      }
      keeper.forget(child)
    }
  }
}
