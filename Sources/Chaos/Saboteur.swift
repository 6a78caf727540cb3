import EmbeddedPostgres
import Foundation
import Rig

/// Does to a running system what systems have to live through, and says what it can have made repeat.
struct Saboteur: Sendable {
  let crew: Crew
  let servers: Servers
  let observer: Observer
  /// Between each dispatcher and PostgreSQL.
  let databaseLinks: [Link]
  /// What arrived since a crash, and ``Observer/margin`` before it: the crash may have taken back the record of it.
  let arrived: @Sendable (ContinuousClock.Instant) -> Set<Pair>

  /// Any of the faults that do not depend on what receives.
  func inject(
    _ fault: Fault,
    at place: Int,
    _ random: inout SeededGenerator,
    _ incident: inout Incident
  ) async throws {
    switch fault {
    case .kill: try await kill(place, &incident)
    case .zombie: try await stopAndContinue(place, short: random.happens(0.25), &random, &incident)
    case .terminate: try await terminate(place, &incident)
    case .crash: try await crash(&random, &incident)
    case .databaseNetwork: try await disturbDatabase(place, &random, &incident)
    default: preconditionFailure("\(fault.rawValue): not a fault of the saboteur's")
    }
  }

  /// Stopped first, so that what is in flight can be counted and does not change any more.
  func kill(_ place: Int, _ incident: inout Incident) async throws {
    _ = try await freeze(place, &incident)
    try await crew.end(place, with: SIGKILL)
  }

  /// Counts what it held when it came to stand still. A statement of its that is still under way changes that in one
  /// direction only: what a record ends cannot be repeated, and of what a cut or a claim hands out it sends nothing as
  /// long as it stands, nor later under a lease that has run out.
  private func freeze(_ place: Int, _ incident: inout Incident) async throws -> ChildProcess {
    try await ready(place)
    guard let child = try await crew.hold(place) else { throw ChaosError("dispatcher \(place) is not running") }
    do {
      incident.inFlight = try await observer.inFlight(pid: child.pid)
      // Asked afterwards: whose lease is there still has not been taken over before the count.
      incident.victims = try await observer.dispatchers(pid: child.pid)
    } catch {
      crew.release(place, child)
      throw error
    }
    return child
  }

  func stopAndContinue(
    _ place: Int,
    short: Bool,
    _ random: inout SeededGenerator,
    _ incident: inout Incident
  ) async throws {
    let child = try await freeze(place, &incident)
    defer { crew.release(place, child) }
    if short {
      try await Task.sleep(for: .milliseconds(Int.random(in: 100...2000, using: &random)))
      // Whose lease has survived this goes on, and may hold something else should it lose it later.
      incident.victims.subtract(try await observer.dispatchers(pid: child.pid))
    } else {
      try await eventually("others take over from a stopped dispatcher", within: .seconds(40)) {
        try await observer.dispatchers(pid: child.pid).isEmpty
      }
      try await Task.sleep(for: .milliseconds(Int.random(in: 0...500, using: &random)))
    }
  }

  func terminate(_ place: Int, _ incident: inout Incident) async throws {
    try await ready(place)
    incident.inFlight = try await observer.inFlight(pid: crew.child(place)?.pid)
    try await observer.execute(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '\(Scene.role(place))'"
    )
  }

  /// PostgreSQL stops at once, without a checkpoint, and recovers from its log.
  func crash(_ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    let server = servers.primary
    let began = incident.began
    try await server.halt(.immediate)
    try await Task.sleep(for: .milliseconds(Int.random(in: 0...800, using: &random)))
    incident.inFlight = try await crew.whileFrozen {
      try await server.resume()
      return try await exposed(since: began)
    }
  }

  /// After a crash, while dispatchers stand still: what has arrived, or is on its way, and is not recorded. A crash takes
  /// back the last asynchronous commits: outcomes, cuts, and claims.
  /// - Parameter crash: nothing was taken back that had been committed long before.
  func exposed(since crash: ContinuousClock.Instant) async throws -> Set<Pair> {
    let inFlight = try await observer.inFlight().union(try await observer.uncut())
    try await Task.sleep(for: .milliseconds(100))
    let arrived = arrived(crash)
    return inFlight.union(try await observer.unrecorded(arrived, since: crash))
      .union(try await observer.claimable(after: arrived))
  }

  /// Between one dispatcher and PostgreSQL.
  func disturbDatabase(_ place: Int, _ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    try await ready(place)
    let link = databaseLinks[place]
    guard let pid = crew.child(place)?.pid else { return }
    defer { link.become(.fair) }
    incident.inFlight = try await observer.inFlight(pid: pid)
    let milliseconds: Int
    switch Int.random(in: 0..<5, using: &random) {
    case 0, 1:
      link.cut(reset: random.happens(0.5))
      milliseconds = 100
    case 2:
      link.become(.slow(milliseconds: Int.random(in: 20...200, using: &random)))
      milliseconds = 1500
    case 3:
      link.become(.refusing)
      link.cut(reset: true)
      milliseconds = Int.random(in: 500...1500, using: &random)
    default:
      // As if the cable had been pulled; often beyond the lease, so that others take over.
      link.become(.silent)
      milliseconds = Int.random(in: 500...6000, using: &random)
    }
    let end = ContinuousClock.now + .milliseconds(milliseconds)
    incident.inFlight.formUnion(
      try await observer.held(by: pid) {
        if .now < end { return true }
        link.become(.fair)
        return try await !observer.isLively(pid)
      }
    )
    if .now < end { try await Task.sleep(until: end) }
    link.become(.fair)
    if random.happens(0.3) { link.cut(reset: true) }
    incident.inFlight.formUnion(try await observer.inFlight(pid: pid))
  }

  /// Waits until a dispatcher has its lease.
  func ready(_ place: Int) async throws {
    try await eventually("dispatcher \(place) has a lease", within: .seconds(40)) {
      guard let pid = crew.child(place)?.pid else { return false }
      return try await observer.int(
        "SELECT count(*) FROM outbox.dispatcher WHERE pid = \(pid) AND expires_at > clock_timestamp()"
      ) > 0
    }
  }
}
