import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Rig
import Synchronization

/// A whole system, run for one fault: PostgreSQL, three dispatchers, publishers, and a receiver with faults of its own.
struct Scene: Sendable {
  let fault: Fault
  let servers: Servers
  let crew: Crew
  let keeper: ChildKeeper
  let mailbox: Mailbox
  let journal = Journal()
  let observer: Observer
  /// Between all dispatchers and the receiver.
  let receiverLink: Link
  /// Between each dispatcher and PostgreSQL; empty unless the scene is about that.
  let databaseLinks: [Link]
  let pooler: Pooler?
  let clocks: Clocks?
  let disk: SmallDisk?
  let logs: URL
  let seed: UInt64

  /// With nothing arriving for so long, what is missing counts as lost.
  static let patience = Duration.seconds(45)

  var saboteur: Saboteur {
    Saboteur(crew: crew, servers: servers, observer: observer, databaseLinks: databaseLinks) { [mailbox] crash in
      mailbox.arrived(since: crash - Observer.margin)
    }
  }

  /// What prevents this fault here, in words; nil if nothing does.
  static func obstacle(to fault: Fault) -> String? {
    switch fault {
    case .diskFull where geteuid() != 0: "needs root, to mount a small file system"
    case .pooler where Pooler.program == nil: "pgbouncer is not installed"
    case .clock where HostClock.library == nil:
      "libHostClock.so is not beside the executable: swift build --product HostClock"
    default: nil
    }
  }

  struct Outcome: Sendable {
    var account: Account
    var result: Account.Result
    var pause: Duration
    var refused: Int
    var missing: Int
    var endsByItself: Int
    /// What the database says of the suspects.
    var histories: [String]
  }

  /// Runs the fault so many times and settles the account.
  func play(rounds: Int) async throws -> Outcome {
    let isOver = StopFlag()
    return try await withThrowingTaskGroup(of: Void.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await crew.supervise() }
      for place in 0..<Crew.size { try await saboteur.ready(place) }
      async let publishing: Void = publish { isOver.isSet }
      var incidents: [Incident] = []
      var random = SeededGenerator(seed: seed, stream: 1)
      var failure: (any Error)?
      do {
        try await eventually("deliveries begin", within: .seconds(30)) { mailbox.answeredCount > 100 }
        for round in 0..<rounds {
          if fault == .mixed {
            incidents += try await injectSeveral(&random)
          } else {
            incidents.append(try await inject(fault, at: Int.random(in: 0..<Crew.size, using: &random), round, &random))
          }
          try await Task.sleep(for: .milliseconds(Int.random(in: 200...1200, using: &random)))
        }
      } catch {
        failure = error
      }
      isOver.set()
      let publishersEnd = ContinuousClock.now
      try await publishing
      if let failure { throw failure }
      try await comeToRest()
      let missing = try await observer.int(
        "SELECT missing FROM outbox.conservation(now() - interval '1 day', max_events => 10000000)"
      )
      let mishaps = try await observer.mishaps(since: 0, timeout: Self.timeoutSeconds(fault))
      try await crew.dismiss()
      let account = Account(
        journal: journal.snapshot,
        arrivals: mailbox.arrivals,
        incidents: incidents,
        mishaps: mishaps
      )
      let result = account.settle()
      var histories: [String] = []
      for pair in result.suspects { histories += try await observer.history(of: pair) }
      return Outcome(
        account: account,
        result: result,
        pause: account.longestPause(until: publishersEnd),
        refused: mailbox.refusedCount,
        missing: missing,
        endsByItself: crew.endsByItself,
        histories: histories
      )
    }
  }

  private func publish(until isOver: @escaping @Sendable () -> Bool) async throws {
    try await Publishers(
      count: Publisher.count,
      isBulk: false,
      seed: seed,
      database: servers.connectionString(user: "app"),
      keeper: keeper,
      logs: logs
    ).run {
      // Of each publisher, between two transactions.
      Thread.sleep(forTimeInterval: 0.04)
      return !isOver()
    } take: { (transaction: Journal.Transaction) in
      journal.note(transaction)
    }
  }

  private func comeToRest() async throws {
    mailbox.calmDown()
    receiverLink.close(share: 0)
    let expected = journal.committedCount * Mailbox.paths.count
    try await settle(observer, expected: expected, patience: Self.patience) { mailbox.answeredCount }
  }
}

/// Set once, read by many.
final class StopFlag: Sendable {
  private let value = Atomic(false)

  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }
}
