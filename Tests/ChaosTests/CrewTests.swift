import EmbeddedPostgres
import Foundation
import Rig
import Testing

@testable import Chaos

/// What is counted of a dispatcher that was stopped must not change any more.
@Suite struct CrewTests {
  @Test func whoIsHeldStandsStill() async throws {
    let logs = try LogDirectory("crew")
    defer { logs.remove() }
    let keeper = try ChildKeeper(directory: logs.url)
    // In the dispatcher's place something that only sleeps, and has to be woken up to be stopped.
    let crew = try Crew(databases: [String](repeating: "", count: Crew.size), keeper: keeper, logs: logs.url) { _ in
      ["sh", "-c", "exec sleep 1000"]
    }
    for place in 0..<Crew.size { try crew.start(place) }
    for _ in 0..<50 {
      let child = try #require(try await crew.hold(0))
      #expect(child.isStopped())
      // Twice held, it goes on when it was released twice.
      #expect(try await crew.hold(0) === child)
      crew.release(0, child)
      #expect(child.isStopped())
      crew.release(0, child)
      #expect(!child.isStopped())
    }
    let children = try (0..<Crew.size).map { try #require(crew.child($0)) }
    #expect(try await crew.whileFrozen { children.allSatisfy { $0.isStopped() } })
    #expect(!children.contains { $0.isStopped() })
    for place in 0..<Crew.size { try await crew.end(place, with: SIGKILL) }
    #expect(!children[0].isStopped())
    await keeper.finish()
  }
}
