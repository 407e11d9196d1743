module github.com/execguard/execguard

go 1.25.0
