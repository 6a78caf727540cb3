import Testing

@testable import HTTPDelivery

@Suite struct RetryAfterTests {
  @Test(arguments: [
    ("120", 120), (" 7\t", 7), ("0", 0), ("000", 0), ("99999999999999999999999999", 366 * 86_400),
  ])
  func secondsAreReadAndBounded(text: String, seconds: Int) {
    #expect(RetryAfter(parsing: text) == .seconds(seconds))
  }

  @Test(arguments: [
    ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000), ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
    ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
  ])
  func dateIsRead(text: String, unixSeconds: Int) {
    #expect(RetryAfter(parsing: text) == .date(unixSeconds))
  }

  @Test(arguments: [
    "", " ", "-1", "+1", "1.5", "1s", "soon", "Sun, 06 Nov 1994 08:49:37 PST", "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 06 Foo 1994 08:49:37 GMT",
    "Sun, 06 Nov 1969 08:49:37 GMT", "Sun, 06 Nov 1994 08:4x:37 GMT", "é",
  ])
  func anythingElseIsIgnored(text: String) {
    #expect(RetryAfter(parsing: text) == nil)
  }
}
