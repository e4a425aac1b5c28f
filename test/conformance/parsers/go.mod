module meshwork.dev/conformance/parsers

go 1.20
