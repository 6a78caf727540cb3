import Foundation
import Rig

/// Faults of dispatchers.
extension Scene {
  /// Several faults that overlap in time, of different kinds and each at another dispatcher. What they are, and when each
  /// begins, is drawn before any does: how long one takes does not change the others.
  func injectSeveral(_ random: inout SeededGenerator) async throws -> [Incident] {
    let faults = Fault.mixable.shuffled(using: &random).prefix(Int.random(in: 2...3, using: &random))
    let places = (0..<Crew.size).shuffled(using: &random)
    let plan = zip(faults, places).map { fault, place in
      (
        fault: fault, place: place, delay: Duration.milliseconds(Int.random(in: 0...1500, using: &random)),
        random: SeededGenerator(seed: random.next(), stream: 0)
      )
    }
    return try await withThrowingTaskGroup(of: Incident.self) { group in
      for one in plan {
        group.addTask {
          try await Task.sleep(for: one.delay)
          var random = one.random
          return try await inject(one.fault, at: one.place, 0, &random)
        }
      }
      var incidents: [Incident] = []
      for try await incident in group { incidents.append(incident) }
      return incidents.sorted { $0.began < $1.began }
    }
  }

  func inject(
    _ fault: Fault,
    at place: Int,
    _ round: Int,
    _ random: inout SeededGenerator
  ) async throws -> Incident {
    let began = ContinuousClock.now
    var incident = Incident(fault: fault, began: began, ended: began)
    switch fault {
    case .kill, .zombie, .terminate, .crash, .databaseNetwork:
      try await saboteur.inject(fault, at: place, &random, &incident)
    case .receiverNetwork: try await disturbReceiver(&random, &incident)
    case .failover: try await failOver(&incident)
    case .diskFull: try await fillDisk(&random, &incident)
    case .connections: try await hogConnections(place, &random, &incident)
    case .pooler: try await breakPooler(round, &incident)
    case .clock: try await jump(place, &random)
    case .maintenance: try await maintain()
    case .versions: try await replace(place, round)
    case .mixed: preconditionFailure("mixed: not a fault of its own")
    }
    incident.ended = .now
    return incident
  }

  /// Of one host, or of all at once. Dispatchers must not care: they keep their leases, and deliver.
  private func jump(_ place: Int, _ random: inout SeededGenerator) async throws {
    let hours = Int.random(in: 1...24, using: &random)
    let seconds = random.happens(0.6) ? -hours * 3600 : hours * 3600
    let places = random.happens(0.5) ? Array(0..<Crew.size) : [place]
    for place in 0..<Crew.size { try await saboteur.ready(place) }
    let leases = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM outbox.dispatcher"
    let before = try await observer.text(leases)
    for place in places { try clocks?.set(place, bySeconds: seconds) }
    try await Task.sleep(for: .seconds(1))
    let answered = mailbox.answeredCount
    try await Task.sleep(for: .seconds(Crew.leaseSeconds + 1))
    let what = "\(places.count) of \(Crew.size) clocks were set by \(seconds) s"
    let after = try await observer.text(leases)
    guard before == after else { throw ChaosError("\(what), and leases were lost: before \(before), after \(after)") }
    guard mailbox.answeredCount > answered else { throw ChaosError("\(what), and deliveries stopped") }
  }

  /// A rolling update. There is but one version to be had; the other is one by name only.
  private func replace(_ place: Int, _ round: Int) async throws {
    try await saboteur.ready(place)
    try await crew.end(place, with: SIGTERM)
    try await saboteur.ready(place)
    guard let pid = crew.child(place)?.pid else { return }
    try await observer.execute("UPDATE outbox.dispatcher SET version = '0.0.\(round)' WHERE pid = \(pid)")
  }

  private func maintain() async throws {
    let program = try Executable.path()
    let url = servers.connectionString(user: "postgres")
    let children = try (0..<2).map { index in
      try keeper.start(
        [program, "migrate", "--database-url", url],
        log: logs.appendingPathComponent("migrate-\(index).log")
      )
    }
    // The last day's partitions of each, so that there is something to make.
    for table in ["event", "attempt_packed", "attempt_single"] {
      try await observer.execute(
        """
        DO $$ BEGIN
          EXECUTE (SELECT 'DROP TABLE ' || inhrelid::regclass FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
                   WHERE inhparent = 'outbox.\(table)'::regclass AND relname ~ '[0-9]$' ORDER BY relname DESC LIMIT 1);
        END $$
        """
      )
    }
    _ = try await observer.maintain()
    for child in children {
      guard try await child.waitForExit(within: .seconds(30)) == .exited(0) else {
        throw ChaosError("`martlet migrate` failed while dispatchers were running")
      }
      keeper.forget(child)
    }
  }
}
