import Foundation
import Synchronization
import Testing

@testable import Chaos

/// Between publishers and the checker.
@Suite struct PublisherLineTests {
  @Test func eachPermitIsOneTransactionAndEachIsTold() throws {
    let listener = try listen()
    defer { unlink(listener.path) }
    let work = Thread.start { try PublisherLine.work(listener.path, transaction: Self.counter()) }
    let line = try #require(listener.accept(within: .seconds(60)))
    var (permits, told) = (0, [Int]())
    try PublisherLine.serve(
      line,
      permit: {
        permits += 1
        return permits <= 5
      },
      take: { told.append($0) }
    )
    #expect(told == [1, 2, 3, 4, 5])
    try work.wait()
  }

  @Test func aPublisherThatDiesIsNoticed() throws {
    let listener = try listen()
    defer { unlink(listener.path) }
    let work = Thread.start {
      try PublisherLine.work(listener.path) { () throws -> Int in throw ChaosError("it died") }
    }
    let line = try #require(listener.accept(within: .seconds(60)))
    #expect(throws: ChaosError.self) {
      try PublisherLine.serve(line, permit: { true }, take: { (_: Int) in })
    }
    #expect(throws: ChaosError.self) { try work.wait() }
  }

  @Test func aPathTooLongForASocketIsRefusedInWords() {
    let file = URL(fileURLWithPath: "/tmp/" + String(repeating: "x", count: 200))
    #expect { try PublisherLine.Listener(file) } throws: { "\($0)".contains("TMPDIR") }
  }

  private static func counter() -> () -> Int {
    var count = 0
    return {
      count += 1
      return count
    }
  }

  private func listen() throws -> PublisherLine.Listener {
    try PublisherLine.Listener(URL(fileURLWithPath: "/tmp/martlet-line-\(UUID().uuidString.prefix(8))"))
  }
}

extension Thread {
  /// Something that runs on a thread of its own, and how it ended.
  final class Work: Sendable {
    fileprivate let result = Mutex<Result<Void, any Error>?>(nil)
    fileprivate let done = DispatchSemaphore(value: 0)

    func wait() throws {
      done.wait()
      try result.withLock { $0 }?.get()
    }
  }

  fileprivate static func start(_ body: @escaping @Sendable () throws -> Void) -> Work {
    let work = Work()
    detachNewThread {
      let result = Result { try body() }
      work.result.withLock { $0 = result }
      work.done.signal()
    }
    return work
  }
}
