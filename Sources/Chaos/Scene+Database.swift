import EmbeddedPostgres
import Foundation
import Postgres
import Rig

/// Faults of PostgreSQL.
extension Scene {
  func failOver(_ incident: inout Incident) async throws {
    let began = incident.began
    incident.inFlight = try await crew.whileFrozen {
      try await servers.promote()
      return try await saboteur.exposed(since: began)
    }
    try await Task.sleep(for: .seconds(1))
    try await servers.attachStandby()
  }

  func fillDisk(_ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    guard let disk else { throw ChaosError("there is no small disk") }
    let began = incident.began
    let server = servers.primary
    let end = ContinuousClock.now + .milliseconds(Int.random(in: 1500...4000, using: &random))
    while .now < end {
      try disk.fill()
      try await Task.sleep(for: .milliseconds(100))
    }
    incident.inFlight = try await crew.whileFrozen {
      try disk.makeRoom()
      // It may have given up, or be in the middle of that.
      try await eventually("PostgreSQL is back after the disk was full", within: .seconds(60)) {
        try await server.resume()
        return try await observer.session.canWork()
      }
      return try await saboteur.exposed(since: began)
    }
  }

  /// All connections are taken, those of a dispatcher among them. It may lose its lease for it.
  func hogConnections(_ place: Int, _ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    try await saboteur.ready(place)
    var hogs = try await takeAll()
    try await saboteur.terminate(place, &incident)
    guard let pid = crew.child(place)?.pid else { return }
    let end = ContinuousClock.now + .milliseconds(Int.random(in: 500...5000, using: &random))
    incident.inFlight.formUnion(
      try await observer.held(by: pid) {
        if .now < end {
          hogs += try await takeAll()
          return true
        }
        for hog in hogs { await hog.disconnect() }
        hogs = []
        return try await !observer.isLively(pid)
      }
    )
    for hog in hogs { await hog.disconnect() }
    for place in 0..<Crew.size { try await saboteur.ready(place) }
  }

  private func takeAll() async throws -> [Session] {
    var taken: [Session] = []
    while true {
      let session = Session(.init(connectionString: servers.connectionString(user: "app")), name: "hog")
      do {
        try await session.withConnection { _ in }
        taken.append(session)
      } catch is PostgresError {
        return taken
      }
    }
  }

  func breakPooler(_ round: Int, _ incident: inout Incident) async throws {
    guard let pooler else { throw ChaosError("there is no pooler") }
    for place in 0..<Crew.size { try await saboteur.ready(place) }
    incident.inFlight = try await observer.inFlight()
    if round % 2 == 0 {
      if let child = await pooler.kill() { keeper.forget(child) }
      try await Task.sleep(for: .milliseconds(300))
      try pooler.start { try keeper.start($0, log: $1) }
    } else {
      try await observer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'dispatcher%'"
      )
    }
  }
}

extension Session {
  fileprivate func canWork() async throws -> Bool {
    do {
      try await withConnection { try $0.execute("SELECT pg_switch_wal()") }
      return true
    } catch is PostgresError {
      return false
    }
  }
}
