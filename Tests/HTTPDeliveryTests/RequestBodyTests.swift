import Testing

@testable import HTTPDelivery

@Suite struct RequestBodyTests {
  @Test func bytesAreCopiedOnceAndStayWhereTheyAre() {
    let body = RequestBody([1, 2, 3])
    #expect(Array(body.bytes) == [1, 2, 3])
    #expect(body.count == 3)
    #expect(body.bytes.baseAddress == body.bytes.baseAddress)
  }

  @Test func emptyBodyHasAnAddress() {
    #expect(RequestBody([]).count == 0)
    #expect(RequestBody([]).bytes.baseAddress != nil)
  }

  @Test func writerMayUseLessThanItAskedFor() {
    let body = RequestBody(capacity: 100) { buffer in
      buffer[0] = 9
      return 1
    }
    #expect(Array(body.bytes) == [9])
  }

  @Test(arguments: [
    (Duration.seconds(1), 1000), (.zero, 1), (.seconds(-5), 1), (.nanoseconds(5), 1), (.milliseconds(1500), 1500),
    (.seconds(Int64.max), 1_000_000_000),
  ])
  func timeoutIsAtLeastAMillisecondAndNeverOverflows(timeout: Duration, milliseconds: Int) {
    #expect(timeout.curlMilliseconds == milliseconds)
  }
}
