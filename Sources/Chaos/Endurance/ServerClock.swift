import Foundation
import OutboxStore

/// PostgreSQL's clock, which can be set a day ahead: retention goes by days, and a run lasts minutes.
///
/// A day must not take the leases away, which are a matter of seconds: they are moved along while dispatchers stand still.
struct ServerClock: Sendable {
  private let directory: URL
  private let clock: HostClock

  /// In a directory that the server's user can enter, unlike that of the logs.
  init() throws {
    guard let library = HostClock.library else {
      throw ChaosError("libHostClock.so is not beside the executable: swift build --product HostClock")
    }
    var path = Array("/tmp/martlet-clock-XXXXXX".utf8CString)
    guard mkdtemp(&path) != nil else { throw ChaosError("no directory could be made in /tmp") }
    directory = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    let copy = directory.appendingPathComponent("libHostClock.so")
    try FileManager.default.copyItem(atPath: library, toPath: copy.path)
    clock = try HostClock(library: copy.path, file: directory.appendingPathComponent("clock"))
    for file in [directory, copy, clock.file] { chmod(file.path, 0o755) }
  }

  var prefix: [String] { clock.prefix }
  func remove() { try? FileManager.default.removeItem(at: directory) }

  /// Returns what maintenance did, in words.
  func set(day: Int, _ crew: Crew, _ observer: Observer) async throws -> String {
    try await crew.whileFrozen {
      // Locked until the clock is set: a heartbeat that is on its way reads the clock after that.
      try await observer.transaction { connection in
        try connection.execute("LOCK TABLE outbox.dispatcher IN EXCLUSIVE MODE")
        try connection.execute("UPDATE outbox.dispatcher SET expires_at = expires_at + interval '1 day'")
        try clock.set(bySeconds: day * 86_400)
      }
    }
    // Dispatchers do this once a minute, by their own clocks: a day may be over before that.
    return try await observer.maintain().joined(separator: ", ")
  }
}
