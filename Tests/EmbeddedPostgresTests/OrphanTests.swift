import Foundation
import Testing

@testable import EmbeddedPostgres

/// Nothing may linger when the process that owns a server dies.
@Suite struct OrphanTests {
  private static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent().appendingPathComponent("ThrowawayPostgres").path

  @Test func killedOwnerLeavesNoServer() async throws {
    try await withTemporaryDirectory { (parent) async throws in
      let (owner, output) = try spawnOwner(parent)
      var line = ""
      try await eventually("the owner's server") {
        #expect(owner.exitStatus() == nil)
        line = (try? String(contentsOf: output, encoding: .utf8)) ?? ""
        return line.hasSuffix("\n")
      }
      let postmaster = try #require(pid_t(line.prefix { $0 != " " }))
      #expect(ProcessTable.isRunning(postmaster))
      owner.signal(SIGKILL)
      try await eventually("the postmaster's end") { !ProcessTable.isRunning(postmaster) }
      try await eventually("the directory's removal") { try contents(parent) == ["owner.log"] }
    }
  }

  @Test func ownerKilledDuringStartLeavesNothing() async throws {
    try await withTemporaryDirectory { (parent) async throws in
      let (owner, _) = try spawnOwner(parent)
      // The keeper is started right after the directory is made; initdb's first file shows that it is there.
      try await eventually("initdb at work") {
        try contents(parent).contains {
          FileManager.default.fileExists(atPath: parent.appendingPathComponent("\($0)/data/PG_VERSION").path)
        }
      }
      owner.signal(SIGKILL)
      try await eventually("the directory's removal") { try contents(parent) == ["owner.log"] }
    }
  }

  @Test func cancelledStartLeavesNothing() async throws {
    try await withTemporaryDirectory { (parent) async throws in
      chmod(parent.path, 0o777)
      let start = Task { try await EmbeddedPostgres.start(.init(directory: parent)) }
      try await eventually("initdb at work") {
        try contents(parent).contains {
          FileManager.default.fileExists(atPath: parent.appendingPathComponent("\($0)/data/PG_VERSION").path)
        }
      }
      start.cancel()
      await #expect(throws: CancellationError.self) { try await start.value }
      #expect(try contents(parent) == [])
    }
  }

  @Test func droppedServerIsStopped() async throws {
    let (postmaster, directory) = try await {
      let server = try await EmbeddedPostgres.start()
      return (try #require(server.pid), server.directory)
    }()
    try await eventually("the postmaster's end") { !ProcessTable.isRunning(postmaster) }
    try await eventually("the directory's removal") { !FileManager.default.fileExists(atPath: directory.path) }
  }

  private func spawnOwner(_ parent: URL) throws -> (ChildProcess, output: URL) {
    // The server's user makes nothing in here; its own directory is made and handed over by the owner.
    let output = parent.appendingPathComponent("owner.log")
    chmod(parent.path, 0o777)
    return (try ChildProcess([Self.program, parent.path], in: parent, output: output), output)
  }

  private func contents(_ directory: URL) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.path)
  }
}
