import Synchronization
import Testing

@testable import HTTPDelivery

@Suite struct ShutdownTests {
  @Test func shutdownAbortsWhatIsInFlightAndRunReturns() async throws {
    let server = ScriptedServer { $0.hang() }
    let client = TestClient(.loopback)
    async let run: Void = client.engine.run()
    async let completions = client.post(server.url, times: 20)
    while server.acceptedCount < 20 { await Task.yield() }
    client.engine.shutdown()
    await run
    #expect(await completions.allSatisfy { $0.failure == HTTPFailure(.aborted, "the engine was shut down") })
  }

  @Test func shutdownAbortsWhatWaitsForItsTurn() async throws {
    let server = ScriptedServer { $0.hang() }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.maxConnectionsPerHost = 1
    let client = TestClient(configuration)
    async let run: Void = client.engine.run()
    async let completions = client.post(server.url, times: 5)
    while server.acceptedCount < 1 { await Task.yield() }
    client.engine.shutdown()
    await run
    #expect(await completions.allSatisfy { $0.failure?.kind == .aborted })
  }

  @Test func requestsQueuedBeforeRunAreAbortedByAnEarlierShutdown() async throws {
    let client = TestClient(.loopback)
    async let completion = client.post("http://127.0.0.1:9/")
    client.engine.shutdown()
    client.engine.shutdown()
    await client.engine.run()
    #expect(await completion.failure?.kind == .aborted)
  }

  @Test func requestsSubmittedAfterTheEndAreAborted() async throws {
    let client = TestClient(.loopback)
    client.engine.shutdown()
    await client.engine.run()
    let completion = await client.post("http://127.0.0.1:9/")
    #expect(completion.failure?.kind == .aborted)
  }

  @Test func requestsReturnedDuringShutdownAreAbortedToo() async throws {
    let tags = Mutex<[UInt64]>([])
    let body = RequestBody([])
    let engine = HTTPEngine(configuration: .loopback) { completions in
      tags.withLock { $0 += completions.map(\.tag) }
      return completions.filter { $0.tag < 5 }.map {
        HTTPRequest(tag: $0.tag + 1, url: "http://127.0.0.1:9/", headers: [], body: body, timeout: .seconds(1))
      }
    }
    engine.submit([HTTPRequest(tag: 1, url: "http://127.0.0.1:9/", headers: [], body: body, timeout: .seconds(1))])
    engine.shutdown()
    await engine.run()
    #expect(tags.withLock { $0 } == [1, 2, 3, 4, 5])
  }

  @Test func cancellingTheTaskShutsTheEngineDown() async throws {
    let server = ScriptedServer { $0.hang() }
    let client = TestClient(.loopback)
    let run = Task { await client.engine.run() }
    async let completion = client.post(server.url)
    while server.acceptedCount < 1 { await Task.yield() }
    run.cancel()
    await run.value
    #expect(await completion.failure?.kind == .aborted)
  }

  @Test func everyRequestCompletesOnceWhileThreadsSubmitAndTheEngineEnds() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let client = TestClient(.loopback)
    async let run: Void = client.engine.run()
    let count = await withTaskGroup(of: Int.self) { group in
      for task in 0..<4 {
        group.addTask {
          for round in 0..<50 {
            _ = await client.post(server.url)
            if task == 0, round == 10 { client.engine.shutdown() }
          }
          return 50
        }
      }
      return await group.reduce(0, +)
    }
    await run
    #expect(count == 200)
  }
}
