module upper

go 1.19
